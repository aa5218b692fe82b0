"""State that all handlers share: the service, its store, access control and limits."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol

from agola_core.datamanager import DataManager
from agola_core.maintenance import Gate
from agola_core.runservice.archive.stored_notes import StoredNotes
from agola_core.runservice.service import RunService
from agola_core.runtime.threads.patient import Patient
from agola_http.access.control import Access
from agola_http.outbound.listen_policy import ListenPolicy
from agola_http.server.connections.limits import Limits


class Backend(Protocol):
    """The parts of a run service; `standalone.Standalone` is one implementation."""

    @property
    def datamanager(self) -> DataManager:
        """Return the store."""

    @property
    def gate(self) -> Gate[RunService]:
        """Return the gate of the run service."""


class State:
    """The state that all handlers share.

    Args:
        backend: The run service and its store; read at every request, because maintenance mode may replace them.
        limits: Limits of requests, connections and streams.
        listen_policy: Addresses that executors may listen on.
        access: Access control.

    Attributes:
        backend: The run service and its store.
        limits: Limits of requests, connections and streams.
        listen_policy: Addresses that executors may listen on.
        access: Access control.
        patient: Reads storage for pages, which are served by the threads that serve everybody.
        notes: What storage keeps of the store for people.
        ending: Set when the server stops, so that streams without an end of their own end too.
    """

    def __init__(
        self,
        backend: Backend,
        limits: Limits | None = None,
        listen_policy: ListenPolicy | None = None,
        access: Access | None = None,
    ) -> None:
        self.backend = backend
        self.access = access or Access()
        self.listen_policy = listen_policy or ListenPolicy()
        self.limits = limits or Limits()
        self.ending = threading.Event()
        self.patient = Patient()
        self.notes = StoredNotes(lambda: backend.datamanager.storage)

    @property
    def service(self) -> RunService:
        """The run service.

        Raises:
            MaintenanceError: It is in maintenance mode.
        """
        return self.backend.gate.service

    @property
    def datamanager(self) -> DataManager:
        """The store."""
        return self.backend.datamanager

    def token(self, groups: Iterable[str]) -> str:
        """Return the token of change groups."""
        return self.service.change_groups_token(groups)
