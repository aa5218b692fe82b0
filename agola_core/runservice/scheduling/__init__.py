"""Creates runs, advances them, and sends their tasks to executors."""
