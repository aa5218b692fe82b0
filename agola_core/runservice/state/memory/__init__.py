"""The state in memory: the mirror of the coordinator with its indexes, and the runs waiting to be advanced."""
