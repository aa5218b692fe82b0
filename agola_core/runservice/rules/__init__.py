"""The decisions of the run service, as pure functions of values."""
