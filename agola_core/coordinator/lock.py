"""Distributed locks: a key under a lease, whose creation revision is the fencing token."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from agola_core.coordinator.port import Compare, Coordinator, DeleteOp, PutOp, Target
from agola_core.errors import AgolaError, FencedError, NotFoundError
from agola_core.runtime.clock import boot_clock, until_next
from agola_core.runtime.processes.forks import Origin, fork_safe
from agola_core.runtime.threads.start import start_thread


class LeaseKeeper:
    """Renews a lease from a background thread (heartbeat) and knows when it may have expired, even after a suspend.

    Args:
        coordinator: Coordinator that holds the lease.
        ttl: Seconds until the lease expires once it is no longer renewed.

    Attributes:
        lease: The lease's id.
    """

    def __init__(self, coordinator: Coordinator, ttl: float) -> None:
        self._coordinator = coordinator
        self._ttl = ttl
        self._origin = Origin("the lease")
        self._stopping = fork_safe(threading.Event())
        asked = boot_clock()
        self.lease = coordinator.grant_lease(ttl)
        self._deadline = asked + ttl
        self._thread = start_thread(f"lease-{self.lease}", self._run)

    @property
    def held(self) -> bool:
        """Whether the lease has certainly not expired yet (False after a pause longer than the lease)."""
        return boot_clock() < self._deadline and self._origin.is_here

    def close(self) -> None:
        """Stop the heartbeat and revoke the lease; harmless if the lease has expired, and in a forked child."""
        if not self._origin.is_here:
            return
        self._stopping.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        if self._deadline == 0.0:
            return
        self._deadline = 0.0
        try:
            self._coordinator.revoke_lease(self.lease)
        except AgolaError:  # it expires by itself
            return

    def _pause(self) -> float:
        """Return the seconds until the next heartbeat, at the instants of all periodic work."""
        third = self._ttl / 3
        return until_next(float(int(third)) if third > 1 else third)

    def _run(self) -> None:
        while not self._stopping.wait(self._pause()):
            asked = boot_clock()
            try:
                left = self._coordinator.keep_alive(self.lease)
            except AgolaError:  # the next heartbeat may still be in time
                continue
            if left <= 0.0:
                self._deadline = 0.0
                return
            self._deadline = asked + min(left, self._ttl)


class Lock:
    """A lock that was acquired; a context manager that releases it.

    Args:
        keeper: Renews the lease under which it is held.
        name: The lock's key.
        token: Revision at which the key was created.
        release: Releases it.

    Attributes:
        name: The lock's key.
        token: Fencing token; increases with every acquisition of the lock.
    """

    def __init__(self, keeper: LeaseKeeper, name: str, token: int, release: Callable[[Lock], None]) -> None:
        self.name = name
        self.token = token
        self._keeper = keeper
        self._release = release

    @property
    def fence(self) -> Compare:
        """The condition to include in a fenced transaction: it fails once the lock is lost."""
        return Compare(self.name, self.token, Target.CREATE_REVISION)

    @property
    def held(self) -> bool:
        """Whether the lock is certainly still held, according to this machine's clock."""
        return self._keeper.held

    def check(self) -> None:
        """Raise `FencedError` unless the lock is certainly still held."""
        if not self.held:
            raise FencedError(f"lock {self.name} was lost")

    def release(self) -> None:
        """Release the lock; harmless if it was lost."""
        self._release(self)

    def __enter__(self) -> Self:
        """Return the lock."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock."""
        self.release()


def try_lock(coordinator: Coordinator, name: str, *, owner: str, ttl: float = 10.0) -> Lock | None:
    """Acquire a lock without waiting.

    Args:
        coordinator: Coordinator that holds the lock.
        name: The lock's key.
        owner: Name of the caller; stored for people to read.
        ttl: Seconds after which the lock of a crashed or paused owner is free again.

    Returns:
        The lock; None if another owner holds it, or if the lease expired before the lock was taken.
    """
    if coordinator.get(name) is not None:
        return None
    keeper = LeaseKeeper(coordinator, ttl)
    try:
        result = coordinator.txn(
            [Compare(name, 0, Target.CREATE_REVISION)], [PutOp(name, owner.encode(), keeper.lease)]
        )
    except NotFoundError:  # paused for longer than the lease: as good as lost
        keeper.close()
        return None
    except BaseException:
        keeper.close()
        raise
    if not result.succeeded:
        keeper.close()
        return None

    def release(lock: Lock) -> None:
        try:
            coordinator.txn([lock.fence], [DeleteOp(name)])
        except AgolaError:  # the lease expires by itself
            pass
        finally:
            keeper.close()

    return Lock(keeper, name, result.revision, release)
