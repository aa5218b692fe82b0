"""Tasks: the run of one, its state and files on this executor, and its steps that are not commands."""
