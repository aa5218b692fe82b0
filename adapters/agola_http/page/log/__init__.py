"""A step's log as rows of HTML, stored or growing, with the colours of a terminal, and the search in it."""
