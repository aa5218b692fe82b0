"""S3's protocol: requests and responses over pooled connections, with checksums."""
