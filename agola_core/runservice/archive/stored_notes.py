"""What storage keeps of a store for people, remembered, so that it is told while storage is away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from agola_core.datamanager import LastVerify, read_verify
from agola_core.errors import AgolaError, UnavailableError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.archive.store_history import LastExport, StoreHistory, read_export, read_history
from agola_core.runtime.processes.forks import fork_safe
from agola_core.runtime.threads.start import start_thread

logger = logging.getLogger(__name__)


class Notes(msgspec.Struct, frozen=True):
    """What storage keeps of a store for people.

    Attributes:
        history: Samples over days.
        exported: The last export; None if none is known.
        verified: The last verify; None if none is known.
        read: When it was read; None if it never was.
        away_since: Since when storage has not been read although somebody asked; None while it is.
    """

    history: StoreHistory = StoreHistory()
    exported: LastExport | None = None
    verified: LastVerify | None = None
    read: datetime | None = None
    away_since: datetime | None = None


class StoredNotes:
    """Reads the notes of a store. Thread-safe.

    A storage that hangs holds one thread, not those that ask: they get what was read before.

    Args:
        storage: Returns the store's object storage.
        patience: Seconds to wait for it.
        patience_away: Seconds to wait for it after it has failed.
    """

    def __init__(
        self, storage: Callable[[], ObjectStorage], *, patience: float = 5.0, patience_away: float = 0.2
    ) -> None:
        self._storage = storage
        self._patience = patience
        self._patience_away = patience_away
        self._lock = fork_safe(threading.Lock())
        self._reading: threading.Event | None = None
        self._read_at = float("-inf")
        self._notes = Notes()

    def read(self, max_age: float = 0.0) -> Notes:
        """Return the notes.

        Args:
            max_age: How many seconds ago they may have been read.
        """
        with self._lock:
            notes = self._notes
            if notes.away_since is None and time.monotonic() - self._read_at < max_age:
                return notes
            if (done := self._reading) is None:
                done = threading.Event()
                try:
                    start_thread("stored-notes", self._read, done)
                except UnavailableError as error:
                    self._failed(str(error))
                    return self._notes
                self._reading = done
        answered = done.wait(self._patience if notes.away_since is None else self._patience_away)
        with self._lock:
            if not answered and self._reading is done:
                self._failed("it does not answer")
            return self._notes

    def _read(self, done: threading.Event) -> None:
        found, failure = None, "interrupted"
        try:
            storage = self._storage()
            found = Notes(read_history(storage), read_export(storage), read_verify(storage), datetime.now(UTC))
        except AgolaError as error:
            failure = str(error)
        finally:
            with self._lock:
                self._reading = None
                if found is None:
                    self._failed(failure)
                else:
                    self._notes, self._read_at = found, time.monotonic()
                done.set()

    def _failed(self, reason: str) -> None:
        if self._notes.away_since is None:  # told once, as pages ask every second
            logger.warning("storage cannot be read for the page of the store: %s", reason)
            self._notes = msgspec.structs.replace(self._notes, away_since=datetime.now(UTC))
