"""The pytest plugin: `plugin` is its entry point, `fixtures` what it offers, `servers` and `faults` what those use."""
