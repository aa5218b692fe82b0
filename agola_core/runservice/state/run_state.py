"""The state of a run service: active runs, executors and tasks, in the coordinator and mirrored in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime

from agola_core.coordinator.port import Coordinator
from agola_core.runservice.model.types import Run
from agola_core.runservice.state.memory.mirror import Mirror
from agola_core.runservice.state.store import RunStore


class RunState:
    """The store, its mirror, and the clock that changes are stamped with.

    Args:
        coordinator: Holds the state.
        epoch: The epoch of run ids and event sequences.
        clock: Seconds since 1970.

    Attributes:
        store: Reads and writes the coordinator.
        mirror: The same state in memory, slightly behind.
    """

    def __init__(self, coordinator: Coordinator, epoch: int, clock: Callable[[], float] = time.time) -> None:
        self.store = RunStore(coordinator, epoch)
        self.mirror = Mirror(coordinator, epoch)
        self._clock = clock

    def now(self) -> datetime:
        """Return the time."""
        return datetime.fromtimestamp(self._clock(), UTC)

    def catch_up(self, timeout: float) -> None:
        """Wait, for at most `timeout` seconds, until the mirror has this process's own writes."""
        self.mirror.wait_for(self.store.written, timeout)

    def wait_change(self, run: Run, timeout: float) -> Run | None:
        """Return an active run once it differs from `run` or the time is over; None when it is not active."""
        self.catch_up(timeout)  # it may have been created just now

        def has_changed() -> bool:
            current = self.mirror.run(run.id)
            return current is not run and current != run  # most changes are of other runs, and a run may be large

        with self.mirror.condition:
            self.mirror.condition.wait_for(has_changed, timeout)
        return self.mirror.run(run.id)

    def wait_archived(self, run_ids: Collection[str], timeout: float) -> bool:
        """Wait until none of the runs is active; return whether that is so."""
        self.catch_up(timeout)
        with self.mirror.condition:
            return self.mirror.condition.wait_for(
                lambda: not any(run_id in self.mirror.runs for run_id in run_ids), timeout
            )
