"""Leases of processes that were killed: a test lets their time pass, and does not wait for it."""

from contextlib import closing
from pathlib import Path

from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator
from agola_core.runtime.clock import boot_clock

_LATER = 3600.0


def end_leases(store):
    """End all leases of a store in a directory, as any process that opens it does once their time is over."""
    with closing(SQLiteCoordinator(Path(store, "coordinator.db"), clock=lambda: boot_clock() + _LATER)) as coordinator:
        coordinator.expire_leases()
