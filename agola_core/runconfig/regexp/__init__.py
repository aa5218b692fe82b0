"""Go's regular expressions, matched in time linear in the text."""
