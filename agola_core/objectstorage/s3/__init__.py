"""Object storage in a bucket of AWS or of any S3-compatible server."""
