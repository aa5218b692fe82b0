"""Injected faults: crashes at fault points, failing storages, and proxies that break connections or requests."""
