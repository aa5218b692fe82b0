"""The coordinator: revisioned keys with compare-and-transact, watches, leases and locks.

Imports errors and the supervisor; the datamanager, the maintenance mode and the runservice stand on it.
"""

from agola_core.coordinator.factory import open_coordinator
from agola_core.coordinator.port import (
    Compare,
    Coordinator,
    DeleteOp,
    DeleteRangeOp,
    GetOp,
    KeyValue,
    PutOp,
    Target,
    TxnResult,
)

__all__ = [
    "Compare",
    "Coordinator",
    "DeleteOp",
    "DeleteRangeOp",
    "GetOp",
    "KeyValue",
    "PutOp",
    "Target",
    "TxnResult",
    "open_coordinator",
]
