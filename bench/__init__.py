"""Benchmarks, each beside its reference in the same process on the same disk: `make bench`."""
