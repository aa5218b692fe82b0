"""Background tasks: uploading WALs, checkpoints, WAL cleanup and garbage collection."""
