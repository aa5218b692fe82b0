"""Active runs, executors and their tasks: in the coordinator, and mirrored in `memory`."""
