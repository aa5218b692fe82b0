"""`run` and `directrun`: from a directory and its configuration to runs."""
