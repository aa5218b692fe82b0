"""What the parts of the core run on: threads, deadlines, clocks, processes, forks, and fault points for tests."""
