"""Maintenance mode: the key that every instance watches, who is in it, and what waits outside meanwhile.

Imports the coordinator's port and the datamanager's records; the run service and its compositions stand on it.
"""

from agola_core.maintenance.gate import Gate
from agola_core.maintenance.mode import (
    KEY,
    MaintenanceStatus,
    Member,
    MemberState,
    barrier,
    disable,
    enable,
    status,
    wait_settled,
)
from agola_core.maintenance.participant import Participant

__all__ = [
    "KEY",
    "Gate",
    "MaintenanceStatus",
    "Member",
    "MemberState",
    "Participant",
    "barrier",
    "disable",
    "enable",
    "status",
    "wait_settled",
]
