"""What commits cost: WALs and events, on SQLite, etcd and S3."""
