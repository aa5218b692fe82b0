"""Runtime support for the whole core: threads, deadlines, clocks, processes, forks, and fault points for tests."""
