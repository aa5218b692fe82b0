"""Run service processes on one store: each publishes itself under a lease."""

from __future__ import annotations

import os
import socket
import uuid

import msgspec

from agola_core.coordinator.lock import LeaseKeeper
from agola_core.coordinator.port import PutOp, iterate
from agola_core.encoding.decoding import decoded
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.store import RunStore
from agola_core.runtime import faultpoints
from agola_core.runtime.processes.liveness import may_live, start_time

faultpoints.declare("service.before-publish")

_LEASE_SECONDS = 10.0


class ServiceInstance(msgspec.Struct, frozen=True):
    """A running service: its process, distinguished by its start from a later process with the same id.

    Attributes:
        host: The machine.
        pid: The process id there.
        start: When the process started, in ticks since the machine's boot; 0 where that is unknown.
    """

    host: str
    pid: int
    start: int = 0


_decode = msgspec.json.Decoder(ServiceInstance).decode


class InstanceLease:
    """This service's entry among the running ones.

    Attributes:
        name: This service's name.
    """

    def __init__(self, store: RunStore) -> None:
        self.name = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._store = store
        self._keeper: LeaseKeeper | None = None

    def publish(self) -> None:
        """Publish this service under a new lease, and keep that alive."""
        self.withdraw()
        self._keeper = LeaseKeeper(self._store.coordinator, _LEASE_SECONDS)
        faultpoints.reach("service.before-publish")
        pid = os.getpid()
        instance = ServiceInstance(socket.gethostname(), pid, start_time(pid) or 0)
        key = run_keys.INSTANCES.key(self.name)
        self._store.write([], [PutOp(key, msgspec.json.encode(instance), self._keeper.lease)])

    def renew(self) -> None:
        """Publish this service again if its lease was lost."""
        if self._keeper is not None and not self._keeper.held:
            self.publish()

    def withdraw(self) -> None:
        """Give the lease up."""
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None

    def live(self) -> list[str]:
        """Return the names of the services that run on this store now, in any process."""
        return [
            run_keys.INSTANCES.name(item.key)
            for item in iterate(self._store.coordinator, run_keys.INSTANCES)
            if may_live(decoded(_decode, item.value, item.key))
        ]
