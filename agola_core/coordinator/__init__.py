"""The coordinator: revisioned keys with compare-and-transact, watches, leases and locks.

Imports errors and fault points; the datamanager, the maintenance mode and the runservice stand on it.
"""
