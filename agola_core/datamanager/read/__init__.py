"""Handles for reading a store: its objects, snapshots of it, and its past states."""
