"""State that all handlers share: the service, its store, access control and limits."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol

from agola_core.datamanager import DataManager
from agola_core.maintenance import Gate
from agola_core.runservice.service import RunService
from agola_http.access.control import Access
from agola_http.outbound.listen_policy import ListenPolicy
from agola_http.server.limits import Limits


class Backend(Protocol):
    """The parts of a run service, whoever put them together; `standalone.Standalone` is one."""

    @property
    def datamanager(self) -> DataManager:
        """Return the store."""

    @property
    def gate(self) -> Gate[RunService]:
        """Return what lets calls to the run service in while it serves."""


class State:
    """What the handlers share.

    Args:
        backend: What they serve. Its parts are asked for with every request: maintenance may replace them.
        limits: What one client may take.
        listen_policy: Where executors may listen.
        access: Decides who may call.

    Attributes:
        backend: As given.
        limits: As given.
        listen_policy: As given.
        access: As given.
        ending: Set when the server ends, so that streams without an end of their own end too.
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

    @property
    def service(self) -> RunService:
        """The run service.

        Raises:
            MaintenanceError: It does not serve.
        """
        return self.backend.gate.service

    @property
    def datamanager(self) -> DataManager:
        """The store."""
        return self.backend.datamanager

    def token(self, groups: Iterable[str]) -> str:
        """Return the token of change groups."""
        return self.service.change_groups_token(groups)
