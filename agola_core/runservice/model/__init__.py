"""The records of the run service, and the protocols that its clients and executors use."""
