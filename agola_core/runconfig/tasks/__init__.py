"""Parses what a task of a run configuration consists of: steps, runtime, dependencies, matrix."""
