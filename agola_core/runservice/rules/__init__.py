"""The decisions of the run service, as pure functions from values to values."""
