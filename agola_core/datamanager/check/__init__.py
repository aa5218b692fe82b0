"""Verification and repair of a whole store."""
