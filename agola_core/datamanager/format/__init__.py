"""What is stored, and where: records, coordinator keys, storage paths, and the readers of single records."""
