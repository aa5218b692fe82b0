"""Reads: what one reader sees of the store, now or at an earlier sequence."""
