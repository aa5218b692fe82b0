"""Object storage in a directory, durable and atomic (posix and posixflat)."""
