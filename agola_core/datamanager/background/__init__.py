"""Background work on the log: uploads of WALs, checkpoints, compaction, WAL cleanup and garbage collection."""
