"""Sweeps that repair what missed events left, and delete expired caches, runs, events, change groups and secrets."""

from __future__ import annotations

import logging
import os
from datetime import timedelta

from agola_core.coordinator.lock import try_lock
from agola_core.datamanager import DataManager
from agola_core.errors import AgolaError
from agola_core.runservice.archive.deletion import RunDeleter
from agola_core.runservice.archive.queries import RunQueries
from agola_core.runservice.archive.recent_samples import RecentSamples
from agola_core.runservice.archive.store_history import record_sample, sample_of
from agola_core.runservice.artifacts.artifact_store import ArtifactStore
from agola_core.runservice.artifacts.releases import Releases
from agola_core.runservice.model.options import ServiceOptions
from agola_core.runservice.rules.retention import expired
from agola_core.runservice.scheduling.scheduler import Scheduler
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.instances import InstanceLease
from agola_core.runservice.state.run_state import RunState
from agola_core.runservice.state.secrets import SecretStore
from agola_core.runtime.threads.supervisor import Supervisor

logger = logging.getLogger(__name__)

_SECRETS_GRACE_SECONDS = 3600.0
_SWEPT_RUNS = 1000
"""How many runs one sweep rechecks: ten thousand take less than a minute."""


class Sweeps:
    """The periodic tasks of the run service."""

    def __init__(
        self,
        datamanager: DataManager,
        state: RunState,
        scheduler: Scheduler,
        instance: InstanceLease,
        queries: RunQueries,
        deleter: RunDeleter,
        releases: Releases,
        artifacts: ArtifactStore,
        secrets: SecretStore,
        recent: RecentSamples,
        options: ServiceOptions,
    ) -> None:
        self._datamanager = datamanager
        self._state = state
        self._scheduler = scheduler
        self._instance = instance
        self._queries = queries
        self._deleter = deleter
        self._releases = releases
        self._artifacts = artifacts
        self._secrets = secrets
        self._recent = recent
        self._options = options
        self._to_sweep: list[str] = []

    def start(self, supervisor: Supervisor) -> None:
        """Start the loops."""
        supervisor.loop("sweep", self.sweep, interval=self._options.sweep_interval)
        supervisor.loop("clean", self.clean, interval=self._options.retention_interval)

    def sweep(self) -> None:
        """Recheck some of the active runs, each in its turn, and the tasks of lost executors."""
        self._recent.take()
        self._instance.renew()
        mirror = self._state.mirror
        with mirror.condition:
            if not self._to_sweep:
                self._to_sweep = [*mirror.runs.ids(), *mirror.tasks.by_run]
            gone = [name for name in mirror.tasks.by_executor if name not in mirror.alive]
        part, self._to_sweep = self._to_sweep[:_SWEPT_RUNS], self._to_sweep[_SWEPT_RUNS:]
        for run_id in part:
            self._scheduler.recheck(run_id)
        for executor_id in gone:
            self._scheduler.executor_changed(executor_id)
        self._releases.sweep()

    def clean(self) -> bool:
        """Delete what has expired: events, change groups, caches, secrets and runs; one service at a time.

        Returns:
            Whether it was this service's turn, until the end.
        """
        store, now = self._state.store, self._state.now()
        lock = try_lock(store.coordinator, run_keys.LOCKS.key("clean"), owner=str(os.getpid()))
        if lock is None:
            return False
        with lock:
            store.trim_events(self._options.keep_events)
            store.groups.forget(self._options.keep_groups)
            self._artifacts.expire_caches(now - timedelta(seconds=self._options.cache_expiry))
            self._secrets.sweep(self._queries.exists, now - timedelta(seconds=_SECRETS_GRACE_SECONDS))
            for run_id in expired(self._options.retention, self._queries.ended, now):
                if not lock.held:
                    return False
                try:
                    self._deleter.delete(run_id)
                except AgolaError:
                    logger.warning("run %s was not deleted by its retention rule", run_id, exc_info=True)
            self._sample()
        return True

    def _sample(self) -> None:
        """Add to the history of the store; it is for people, so nothing else fails with it."""
        try:
            self._datamanager.refresh()
            sample = sample_of(self._datamanager.counters(), self._state.now().timestamp())
            record_sample(self._datamanager.storage, sample)
        except AgolaError:
            logger.warning("the history of the store is not written", exc_info=True)
