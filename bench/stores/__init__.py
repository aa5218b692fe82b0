"""What stores cost: reads, checkpoints, openings, exports, query copies, at every size."""
