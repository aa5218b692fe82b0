"""Attacks on a running service and its executors."""
