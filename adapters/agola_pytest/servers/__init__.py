"""Real servers as processes: etcd, S3, run services and a container engine; usable without pytest."""
