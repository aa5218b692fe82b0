"""The LSM tree: a memtable over sorted `files`, manifests, compaction, and the views that readers get.

`files` knows nothing of the rest; `events` finds events in a view.
"""
