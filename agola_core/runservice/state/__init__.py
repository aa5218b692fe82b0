"""Active runs, executors and their tasks, as the coordinator holds them."""
