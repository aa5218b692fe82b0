"""Command-line options and option types that several commands share."""
