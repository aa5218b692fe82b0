"""The fault campaigns of `make soak`: they go on for as long as they are given, and count what they saw.

Every trial is made from one number, its seed: a failure prints the seed, and `python -m tests.soak NAME --seed N`
plays that trial again. Slices of the same campaigns run with the tests.
"""
