"""What runs leave in object storage: logs as they are fetched, workspace archives, caches, sources and reports."""
