"""The LSM tree: a memtable over sorted data files, manifests, compaction, and the views that readers get."""
