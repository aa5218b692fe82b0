"""Logs, workspace archives, caches and sources in object storage."""
