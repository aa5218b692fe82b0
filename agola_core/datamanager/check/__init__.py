"""Verifying a store, and repairing it."""
