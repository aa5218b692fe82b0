"""Source trees: a directory or a git checkout, packed for the `clone` step of a run."""
