"""The records of the run service, their JSON and places, and the protocols that its clients and executors use."""
