"""Connects a command to what its options name: a running service by URL, or a store in a data directory."""
