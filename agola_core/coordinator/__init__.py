"""The coordinator: a small revisioned key-value store with transactions, watches, leases and locks.

Modules depend downwards only: `factory` on the backends `sqlite` and `etcd`, these on `port` and `outcomes`.
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
