"""The write-ahead log in one process: group commit, conflict checks, lost answers, and the feed of committed WALs."""
