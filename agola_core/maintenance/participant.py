"""An instance's part in maintenance mode: watches the mode, stops and starts the service, publishes its state."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Self

import msgspec

from agola_core.coordinator.lock import LeaseKeeper
from agola_core.coordinator.port import Coordinator, PutOp, Watch
from agola_core.errors import AgolaError, ClosedError, CompactedError, NotFoundError
from agola_core.maintenance import mode
from agola_core.maintenance.mode import Member, MemberState
from agola_core.runtime import faultpoints
from agola_core.runtime.clock import until_next
from agola_core.runtime.closing import Closing
from agola_core.runtime.context import Context
from agola_core.runtime.processes.forks import fork_safe
from agola_core.runtime.threads.supervisor import Loop, Supervisor

logger = logging.getLogger(__name__)

faultpoints.declare("maintenance.before-publish")

_ROUND_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_TTL = 10.0


class Participant(Closing):
    """Starts and stops a service as the mode changes. A context manager.

    Args:
        coordinator: The store's coordinator; it must outlive the participant.
        name: Unique name of the instance.
        store: Name of this instance of the store.
        serve: Starts the service; its context is cancelled if the mode changes meanwhile. After an error it is
            called again.
        pause: Drains and stops the service; harmless if it is not running.
        ttl: Seconds after which the other instances consider a crashed one gone.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        name: str,
        *,
        store: str,
        serve: Callable[[Context], None],
        pause: Callable[[], None],
        ttl: float = _TTL,
    ) -> None:
        self._coordinator = coordinator
        self._serve = serve
        self._pause = pause
        self._ttl = ttl
        self._member = Member(name, socket.gethostname(), os.getpid(), MemberState.STARTING, store=store)
        self._lock = fork_safe(threading.Lock())
        self._keeper: LeaseKeeper | None = None
        self._supervisor = Supervisor("maintenance")
        self._worker: Loop | None = None
        self._watch: Watch | None = None
        self._wanted = 0
        self._unread = False
        self._reached: int | None = None
        self._context = Context()
        self._closed = False

    @property
    def state(self) -> MemberState:
        """State of this instance."""
        return self._member.state

    def start(self) -> None:
        """Publish the instance, bring it to the state that the mode requires, and follow the mode from then on.

        Raises:
            AgolaError: An error of `serve`.
        """
        self._publish(MemberState.STARTING)  # before the key is read: see `mode`
        self._watch = self._coordinator.watch(mode.KEY, self._coordinator.list(mode.KEY, limit=1).revision + 1)
        self._wanted = mode.current(self._coordinator)
        self._move()
        self._worker = self._supervisor.loop("move", self._move, max_backoff=_RETRY_SECONDS)
        self._supervisor.loop("watch", self._follow, interval=0.0, max_backoff=_RETRY_SECONDS)

    def close(self) -> None:
        """Stop following the mode and withdraw the record; the service stays as it is. Closing twice is harmless."""
        self._closed = True
        self._context.cancel()
        if self._watch is not None:
            self._watch.close()
        self._supervisor.stop()
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None

    def __enter__(self) -> Self:
        """Start and return the participant."""
        self.start()
        return self

    def _follow(self) -> None:
        assert self._watch is not None
        try:
            if self._watch.next(until_next(_ROUND_SECONDS)) is not None:
                self._unread = True
        except CompactedError:
            self._unread = True
            old, revision = self._watch, self._coordinator.list(mode.KEY, limit=1).revision
            self._watch = self._coordinator.watch(mode.KEY, revision + 1)
            old.close()
            if self._closed:  # `close` may not have seen it
                self._watch.close()
        except ClosedError:
            if self._closed:
                return
            raise
        if self._unread:
            self._read()
        if self._keeper is not None and not self._keeper.held:
            self._publish(self._member.state, self._member.mode, self._member.error)

    def _read(self) -> None:
        """Read the mode after a change; one that cannot be read now is read in the next round."""
        wanted = mode.current(self._coordinator)
        self._unread = False
        if wanted != self._wanted:
            self._wanted = wanted
            self._context.cancel()
            if self._worker is not None:
                self._worker.wake()

    def _move(self) -> None:
        """Bring the service to the state that the mode requires."""
        while not self._closed and self._reached != (wanted := self._wanted):
            self._context = Context()
            if self._wanted != wanted:  # changed before there was a context to cancel
                continue
            if wanted:
                self._publish(MemberState.ENTERING, wanted)
                self._pause()
                self._publish(MemberState.MAINTENANCE, wanted)
                logger.info("in maintenance mode")
            else:
                self._publish(MemberState.STARTING if self._reached is None else MemberState.LEAVING)
                if not self._start_service():
                    continue
                self._publish(MemberState.SERVING)
            self._reached = wanted

    def _start_service(self) -> bool:
        """Start the service; return False if the start was aborted because the mode has changed."""
        context = self._context
        try:
            self._serve(context)
        except AgolaError as error:
            if not context.ended:
                self._publish(self._member.state, error=str(error))
                raise
            logger.info("the start of the service was aborted: the mode has changed")
            return False
        return True

    def _publish(self, state: MemberState, number: int = 0, error: str = "") -> None:
        with self._lock:
            self._member = msgspec.structs.replace(self._member, state=state, mode=number, error=error)
            for _ in range(2):
                if self._keeper is None or not self._keeper.held:
                    if self._keeper is not None:
                        self._keeper.close()
                    self._keeper = LeaseKeeper(self._coordinator, self._ttl)
                faultpoints.reach("maintenance.before-publish")
                try:
                    self._coordinator.txn(
                        [],
                        [
                            PutOp(
                                mode.member_key(self._member.name),
                                msgspec.json.encode(self._member),
                                self._keeper.lease,
                            )
                        ],
                    )
                    return
                except NotFoundError:  # the lease expired in between
                    self._keeper.close()
                    self._keeper = None
