"""The events of a view: found in the data files and the memtable by position, stream, type, tag and id."""
