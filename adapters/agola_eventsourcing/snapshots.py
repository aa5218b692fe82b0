"""Snapshots of aggregates: objects beside the events, so that they have no place in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import msgspec
from eventsourcing.persistence import AggregateRecorder, StoredEvent

from agola_core.datamanager import Put
from agola_core.errors import BadRequestError, ConflictError
from agola_core.events import EventStore
from agola_eventsourcing.errors import translated
from agola_eventsourcing.streams import change_group

SNAPSHOTS = "eventsourcing.snapshot"
"""The type of snapshots: purpose, NUL, originator, NUL, an inverse of the version -> topic and state."""

_NEWEST = 10**19 - 1


class _Body(msgspec.Struct, frozen=True, array_like=True):
    topic: str
    state: bytes


class AgolaSnapshotRecorder(AggregateRecorder):
    """Records snapshots, or whatever else has versions with gaps; the newest is found by one seek.

    Args:
        store: The store, which stays the factory's to close.
        purpose: What is recorded; recorders of one purpose share it.
    """

    def __init__(self, store: EventStore, purpose: str) -> None:
        super().__init__()
        self.store = store
        self._purpose = purpose

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> Sequence[int] | None:
        """Write snapshots as one WAL, all or none.

        Raises:
            IntegrityError: There is one of such a version already.
        """
        puts = [
            Put(SNAPSHOTS, self._key(e.originator_id, e.originator_version), _encode(e.topic, e.state))
            for e in stored_events
        ]
        groups = sorted({change_group(SNAPSHOTS, self._purpose, str(e.originator_id)) for e in stored_events})
        with translated():
            if len({put.id for put in puts}) != len(puts):
                raise ConflictError("two of the events have one version")
            while puts:
                token = self.store.store.change_groups_token(groups)
                for put in puts:
                    if self._exists(put.id):
                        raise ConflictError("such a version is recorded already")
                try:
                    self.store.store.write_wal(puts, token)
                except ConflictError:
                    continue  # another writer of the aggregate was first: look whether with this version
                break
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return snapshots of an aggregate (see the library)."""
        found: list[StoredEvent] = []
        with translated():
            self.store.store.refresh()
            for stored in self._newest_first(originator_id, lte):
                if gt is not None and stored.originator_version <= gt:
                    break
                if desc and limit is not None and len(found) >= limit:
                    break
                found.append(stored)
        return found if desc else found[::-1][:limit]

    def _newest_first(self, originator_id: UUID | str, lte: int | None) -> Iterator[StoredEvent]:
        prefix = f"{self._purpose}\0{originator_id}\0"
        start = prefix if lte is None else self._key(originator_id, lte + 1)
        for key, data in self.store.store.list_objects(SNAPSHOTS, start_after=start):
            if not key.startswith(prefix):
                return
            body = msgspec.msgpack.decode(data, type=_Body)
            yield StoredEvent(originator_id, _NEWEST - int(key[len(prefix) :]), body.topic, body.state)

    def _exists(self, key: str) -> bool:
        return next(iter(self.store.store.list_objects(SNAPSHOTS, start_after=key[:-1], limit=1)), ("",))[0] == key

    def _key(self, originator_id: UUID | str, version: int) -> str:
        if not 0 <= version < _NEWEST:
            raise BadRequestError(f"a version is 0 or more: {version}")
        return f"{self._purpose}\0{originator_id}\0{_NEWEST - version:019d}"


def _encode(topic: str, state: bytes) -> bytes:
    return msgspec.msgpack.encode(_Body(topic, bytes(state)))
