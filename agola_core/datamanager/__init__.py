"""The datamanager: a log of events, committed through a coordinator, checkpointed to object storage.

It imports the ports of the coordinator and the object storage; the readdb, maintenance and the run service use it.
"""

from agola_core.datamanager.background.checkpoint import Compacted
from agola_core.datamanager.log.feed import Feed
from agola_core.datamanager.log.pending_wal import CoordinatorOps
from agola_core.datamanager.manager import DataManager
from agola_core.datamanager.read.past_store import Checkpoint, PastStore
from agola_core.datamanager.read.snapshot import Snapshot
from agola_core.datamanager.read.status import Status
from agola_core.datamanager.transfer.compression import Compression
from agola_core.datamanager.transfer.export import ExportParts, ExportResult
from agola_core.datamanager.transfer.export_format import ExportFormat
from agola_core.datamanager.transfer.importer import ImportParts, ImportResult
from agola_core.datamanager.types import (
    Action,
    ChangeGroupsToken,
    Delete,
    Durability,
    Event,
    Options,
    Put,
    WalStatus,
)

__all__ = [
    "Action",
    "ChangeGroupsToken",
    "Checkpoint",
    "Compacted",
    "Compression",
    "CoordinatorOps",
    "DataManager",
    "Delete",
    "Durability",
    "Event",
    "ExportFormat",
    "ExportParts",
    "ExportResult",
    "Feed",
    "ImportParts",
    "ImportResult",
    "Options",
    "PastStore",
    "Put",
    "Snapshot",
    "Status",
    "WalStatus",
]
