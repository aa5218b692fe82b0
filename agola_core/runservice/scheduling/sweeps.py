"""The run service's slow loops: sweeps that repair what lost events left, and what goes away by age."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from agola_core.coordinator.lock import LeaseKeeper, try_lock
from agola_core.coordinator.port import PutOp, iterate
from agola_core.decoding import decoded
from agola_core.errors import AgolaError
from agola_core.runservice.artifacts.releases import Releases
from agola_core.runservice.artifacts.stored import Artifacts
from agola_core.runservice.model.options import ServiceOptions
from agola_core.runservice.rules.retention import Ended, expired
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.instances import ServiceInstance, this_instance
from agola_core.runservice.state.mirror import Mirror
from agola_core.runservice.state.store import RunStore
from agola_core.runtime import faultpoints
from agola_core.runtime.process import may_live
from agola_core.runtime.supervisor import Loop, Supervisor

_decode_instance = msgspec.json.Decoder(ServiceInstance).decode

logger = logging.getLogger(__name__)

faultpoints.declare("service.before-publish")

_INSTANCE_TTL = 10.0
_SECRETS_GRACE_SECONDS = 3600.0
_SWEPT_RUNS = 1000
"""Of how many runs a sweep takes care: ten thousand are gone through in under a minute."""


class Upkeep:
    """Sweeps and cleans, beside the work that events drive.

    Args:
        store: Active runs.
        mirror: The same in memory.
        releases: What deleted runs let go of.
        artifacts: Has the caches.
        options: How often, and how old.
        again: Asks for a run to be advanced when there is time.
        executor_moved: Asks for what concerns an executor to be looked at.
        find_ended: Returns the archived runs of a group, newest first.
        delete_run: Deletes a run.
        sweep_secrets: Deletes secrets that were written before a time and belong to no run.
        now: The time.

    Attributes:
        name: This service's.
    """

    def __init__(
        self,
        store: RunStore,
        mirror: Mirror,
        releases: Releases,
        artifacts: Artifacts,
        options: ServiceOptions,
        *,
        again: Callable[[str], None],
        executor_moved: Callable[[str], None],
        find_ended: Callable[[str], list[Ended]],
        delete_run: Callable[[str], None],
        sweep_secrets: Callable[[datetime], None],
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._releases = releases
        self._artifacts = artifacts
        self._options = options
        self._again = again
        self._executor_moved = executor_moved
        self._find_ended = find_ended
        self._delete_run = delete_run
        self._sweep_secrets = sweep_secrets
        self._now = now
        self._keeper: LeaseKeeper | None = None
        self.name = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._to_sweep: list[str] = []
        self._started = time.monotonic()

    def start(self, supervisor: Supervisor) -> Loop:
        """Publish this service and start the loops; return the one that cleans."""
        self._started = time.monotonic()
        self._publish()
        supervisor.loop("sweep", self.sweep, interval=self._options.sweep_interval)
        return supervisor.loop("clean", self.clean, interval=self._options.upkeep_interval)

    def stop(self) -> None:
        """Withdraw this service."""
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None

    def live_instances(self) -> list[str]:
        """Return the names of the services that run on this store now, in any process."""
        return [
            run_keys.INSTANCES.name(item.key)
            for item in iterate(self._store.coordinator, run_keys.INSTANCES)
            if may_live(decoded(_decode_instance, item.value, item.key))
        ]

    def is_lost(self, executor_id: str) -> bool:
        """Return whether an executor's lease ended; only after it could report itself to this service."""
        return executor_id not in self._mirror.alive and (
            time.monotonic() - self._started >= self._options.executor_ttl
        )

    def sweep(self) -> None:
        """Look at some of the active runs, all of them in turn, and at the tasks of executors that are gone."""
        if self._keeper is not None and not self._keeper.held:
            self._publish()
        with self._mirror.condition:
            if not self._to_sweep:
                self._to_sweep = [*self._mirror.runs.ids(), *self._mirror.tasks.by_run]
            gone = [name for name in self._mirror.tasks.by_executor if name not in self._mirror.alive]
        part, self._to_sweep = self._to_sweep[:_SWEPT_RUNS], self._to_sweep[_SWEPT_RUNS:]
        for run_id in part:
            self._again(run_id)
        for executor_id in gone:
            self._executor_moved(executor_id)
        self._releases.sweep()

    def clean(self) -> bool:
        """Delete what is too old: events, change groups, caches and runs; one service at a time.

        Returns:
            Whether it was this one's turn.
        """
        lock = try_lock(self._store.coordinator, run_keys.LOCKS.key("clean"), owner=str(os.getpid()))
        if lock is None:
            return False
        with lock:
            self._store.trim_events(self._options.keep_events)
            self._store.groups.forget(self._options.keep_groups)
            self._artifacts.expire_caches(self._now() - timedelta(seconds=self._options.cache_expiry))
            self._sweep_secrets(self._now() - timedelta(seconds=_SECRETS_GRACE_SECONDS))
            for run_id in expired(self._options.retention, self._find_ended, self._now()):
                if not lock.held:
                    return False
                try:
                    self._delete_run(run_id)
                except AgolaError:
                    logger.warning("run %s was not deleted by its retention rule", run_id, exc_info=True)
        return True

    def _publish(self) -> None:
        self.stop()
        self._keeper = LeaseKeeper(self._store.coordinator, _INSTANCE_TTL)
        faultpoints.reach("service.before-publish")
        put = PutOp(run_keys.INSTANCES.key(self.name), msgspec.json.encode(this_instance()), self._keeper.lease)
        self._store.write([], [put])
