"""The datamanager: a log of events, committed through a coordinator, checkpointed to object storage.

It imports the ports of the coordinator and the object storage. The readdb, maintenance, the run service and the
adapters import only the names below. From its rooms import the event store, which is part of the commit path, and
`embedded`, which opens stores.
"""

from typing import TYPE_CHECKING

from agola_core.datamanager.types import (
    Action,
    ChangeGroupsToken,
    Delete,
    Durability,
    Entry,
    Event,
    NewWal,
    Options,
    Put,
    WalStatus,
)
from agola_core.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from agola_core.datamanager.background.checkpoint import Compacted
    from agola_core.datamanager.background.garbage_collector import Garbage
    from agola_core.datamanager.check.data_files import Finding
    from agola_core.datamanager.check.last_verify import LastVerify, read_verify
    from agola_core.datamanager.check.repair import Repair
    from agola_core.datamanager.format.checksummed import decode_checksummed, encode_checksummed
    from agola_core.datamanager.identity.instance import list_instances
    from agola_core.datamanager.log.commit.pending_wal import CoordinatorOps
    from agola_core.datamanager.log.feed import Feed
    from agola_core.datamanager.manager import DataManager
    from agola_core.datamanager.objects.codec import Codec
    from agola_core.datamanager.objects.history import History, ObjectChange, changes_of
    from agola_core.datamanager.objects.mapping import ObjectMapping
    from agola_core.datamanager.objects.subscriber import Subscriber
    from agola_core.datamanager.read.past_store import Checkpoint, Moment, PastStore, parse_moment
    from agola_core.datamanager.read.snapshot import Snapshot
    from agola_core.datamanager.read.status import Counters, Status
    from agola_core.datamanager.transfer.export import ExportItem, ExportParts, ExportResult
    from agola_core.datamanager.transfer.export_format import ExportFormat, as_go
    from agola_core.datamanager.transfer.export_reader import peek_header
    from agola_core.datamanager.transfer.importer import ImportParts, ImportResult
    from agola_core.datamanager.transfer.parallel_compression import Compression

__getattr__ = lazy_names(
    "agola_core.datamanager",
    {
        "background.checkpoint": "Compacted",
        "background.garbage_collector": "Garbage",
        "check.data_files": "Finding",
        "check.last_verify": "LastVerify read_verify",
        "check.repair": "Repair",
        "format.checksummed": "decode_checksummed encode_checksummed",
        "identity.instance": "list_instances",
        "log.feed": "Feed",
        "log.commit.pending_wal": "CoordinatorOps",
        "manager": "DataManager",
        "objects.codec": "Codec",
        "objects.history": "History ObjectChange changes_of",
        "objects.mapping": "ObjectMapping",
        "objects.subscriber": "Subscriber",
        "read.past_store": "Checkpoint Moment PastStore parse_moment",
        "read.snapshot": "Snapshot",
        "read.status": "Counters Status",
        "transfer.parallel_compression": "Compression",
        "transfer.export": "ExportItem ExportParts ExportResult",
        "transfer.export_format": "ExportFormat as_go",
        "transfer.export_reader": "peek_header",
        "transfer.importer": "ImportParts ImportResult",
    },
)

__all__ = [
    "Action",
    "ChangeGroupsToken",
    "Checkpoint",
    "Codec",
    "Compacted",
    "Compression",
    "CoordinatorOps",
    "Counters",
    "DataManager",
    "Delete",
    "Durability",
    "Entry",
    "Event",
    "ExportFormat",
    "ExportItem",
    "ExportParts",
    "ExportResult",
    "Feed",
    "Finding",
    "Garbage",
    "History",
    "ImportParts",
    "ImportResult",
    "LastVerify",
    "Moment",
    "NewWal",
    "ObjectChange",
    "ObjectMapping",
    "Options",
    "PastStore",
    "Put",
    "Repair",
    "Snapshot",
    "Status",
    "Subscriber",
    "WalStatus",
    "as_go",
    "changes_of",
    "decode_checksummed",
    "encode_checksummed",
    "list_instances",
    "parse_moment",
    "peek_header",
    "read_verify",
]


def __dir__() -> list[str]:
    """Return the public names, also those that were not used yet."""
    return __all__
