"""Follows the coordinator: applies what other processes commit, checkpoint or import to this process's log."""

from __future__ import annotations

import threading
import time
from functools import partial

from agola_core.coordinator.port import Watch, WatchBatch, WatchEvent
from agola_core.datamanager.format import keys
from agola_core.datamanager.format.control import decode_item
from agola_core.datamanager.format.records import SyncRecord
from agola_core.datamanager.identity.instance import Instance
from agola_core.datamanager.log.log import Log
from agola_core.errors import ClosedError, CompactedError, RecoveryError
from agola_core.sequence import Sequence

_FOLLOW_SECONDS = 10.0
_GATHER_SECONDS = 0.004
_GATHER_OWN_SECONDS = 0.025


class Follower:
    """Watches the control keys from now on and catches up with every change that this process did not make.

    Args:
        log: The log.
        instance: Publishes which manifest this process reads.
        stopping: Set when `follow` is to return.
    """

    def __init__(self, log: Log, instance: Instance, stopping: threading.Event) -> None:
        self._log = log
        self._instance = instance
        self._stopping = stopping
        self._watch = self._watch_from_now()
        self._behind = False

    def close(self) -> None:
        """End the watch, and a `follow` that waits for it."""
        self._watch.close()

    def follow(self) -> None:
        """Apply the changes of other processes until this one stops.

        Raises:
            RecoveryError: The coordinator went back in time; readers and feeds raise it, too, from now on.
        """
        try:
            if self._behind:  # the last round failed while it caught up
                self._catch_up()
            self._follow()
        except RecoveryError as error:
            self._behind = True
            self._log.lose(error)
            raise

    def _follow(self) -> None:
        gather, caught_up, seen = _GATHER_SECONDS, 0.0, 0
        while not self._stopping.is_set():
            try:
                first = self._watch.next(_FOLLOW_SECONDS)
                if first is None or first.revision <= seen:  # the last catching up included it
                    continue
                # This process's own commits come back here, too: gathering many leaves it free to make more of them.
                # The first change by others after a pause is applied at once: somebody may wait for it.
                if self._is_known(first) or time.monotonic() - caught_up < _GATHER_SECONDS:
                    self._stopping.wait(gather)
                batches = [first, *iter(partial(self._watch.next, 0.0), None)]
            except ClosedError:
                if self._stopping.is_set():
                    return
                raise
            except CompactedError:  # too far behind: read the newest state, then watch from there
                old = self._watch  # stays if the next line fails: the next round tries again
                self._watch = self._watch_from_now()
                old.close()
                if self._stopping.is_set():  # `close` may not have seen it
                    self._watch.close()
                batches = []
            gather = _GATHER_SECONDS
            if batches and all(self._is_known(batch) for batch in batches):
                gather = _GATHER_OWN_SECONDS  # a process that commits much meets the others' commits as it commits
                continue
            self._catch_up()
            caught_up, seen = time.monotonic(), self._log.head_revision

    def _catch_up(self) -> None:
        self._behind = True
        self._log.catch_up()
        self._instance.reads(self._log.view.manifest.number)
        self._behind = False

    def _is_known(self, batch: WatchBatch) -> bool:
        """Return whether a change is a commit or a sync that the log has applied already."""
        return all(self._is_applied(event, batch.revision) for event in batch.events)

    def _is_applied(self, event: WatchEvent, revision: int) -> bool:
        if event.key == keys.HEAD:
            return revision <= self._log.head_revision
        if event.key != keys.SYNC or event.item is None:
            return False
        record = decode_item(SyncRecord, event.item)
        return record.lineage == self._log.lineage.lineage and Sequence.parse(record.sequence) <= self._log.synced

    def _watch_from_now(self) -> Watch:
        """Return a watch that misses nothing after a `catch_up` that follows.

        The head's own revision may be older than the coordinator's history: other keys change, too.
        """
        revision = self._log.coordinator.list(keys.CONTROL, limit=1).revision
        return self._log.coordinator.watch(keys.CONTROL, revision + 1)
