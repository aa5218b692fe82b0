"""The write-ahead log: commits, conflict checks, outcomes, and the feed of committed WALs."""
