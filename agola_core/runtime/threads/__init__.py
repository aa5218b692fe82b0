"""Threads: their start and owner, the queues from which they take work, parallel calls, and calls that may hang."""
