"""Processes that are killed or stopped, and the clock that jumps."""
