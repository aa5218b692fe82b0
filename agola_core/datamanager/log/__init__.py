"""The write-ahead log in one process: its head and view, who waits for it, and the feed; `commit` adds to it."""
