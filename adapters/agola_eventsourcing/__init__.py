"""A persistence module for the library `eventsourcing` on agola_core's event store.

Applications of that library choose it by `PERSISTENCE_MODULE=agola_eventsourcing` and name their store by
`AGOLA_DIRECTORY`, or by `AGOLA_STORAGE` and `AGOLA_COORDINATOR`. Imports agola_core; nothing imports it.
"""

from agola_eventsourcing.dcb import AgolaDCBRecorder
from agola_eventsourcing.factory import AgolaFactory
from agola_eventsourcing.recorders import AgolaAggregateRecorder, AgolaApplicationRecorder, AgolaProcessRecorder
from agola_eventsourcing.snapshots import AgolaSnapshotRecorder
from agola_eventsourcing.tracking import AgolaTrackingRecorder

__all__ = [
    "AgolaAggregateRecorder",
    "AgolaApplicationRecorder",
    "AgolaDCBRecorder",
    "AgolaFactory",
    "AgolaProcessRecorder",
    "AgolaSnapshotRecorder",
    "AgolaTrackingRecorder",
]
