"""Maintenance mode: `mode` is the shared state, `participant` an instance's part, `gate` admits and drains calls.

Uses the coordinator's port and the datamanager's records of instances; `standalone` and the adapters use it.
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
