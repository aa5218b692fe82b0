"""The stored format: records, keys in the coordinator, and paths in object storage."""
