"""Several processes on one machine: which live, what a fork inherits, and the files that they share."""
