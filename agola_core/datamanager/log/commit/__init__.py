"""Commits to the log: waiting writers share transactions, conflicts are refused, lost answers are resolved."""
