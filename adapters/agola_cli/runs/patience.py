"""Goes on asking for a run while its service is away: a restart takes moments, and the run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

from agola_core.errors import AgolaError, MaintenanceError, UnavailableError
from agola_core.runservice.model.requests import WHOLE_LOG, LogPart
from agola_core.runservice.model.types import Run
from agola_core.runservice.service import RunService

if TYPE_CHECKING:
    from agola_cli.connect.target import Service

_PATIENCE_SECONDS = 120.0
_PAUSE_SECONDS = 0.5
AWAY = (UnavailableError, MaintenanceError)


class Patience(msgspec.Struct, frozen=True):
    """Asks a service, and asks again while it is away, for a bounded time each time; one in this process is never away.

    Attributes:
        service: The service.
        say: Tells the user that it is away.
        option: What names the service in a command, with a space in front.
        ended: Whether the user wants no more of it.
        seconds: How long it may be away.
    """

    service: Service
    say: Callable[[str], None]
    option: str = ""
    ended: Callable[[], bool] = lambda: False
    seconds: float = _PATIENCE_SECONDS

    def wait_change(self, run: Run, timeout: float) -> Run:
        """Return a run once it has changed, or when the time is over.

        Args:
            run: Its last known state.
            timeout: Seconds.

        Raises:
            UnavailableError: The service stays away.
        """
        away: float | None = None
        while True:
            try:
                changed = self.service.wait_change(run, timeout)
            except AWAY as error:
                if away is None:
                    away = time.monotonic()
                    self.say(f"{error}: trying again for up to {self.seconds:g} s")
                if not self._is_patient(away):
                    show = f"agola-core runs show {run.id}{self.option}"
                    state = "has ended" if run.phase.is_finished else "may go on"
                    raise UnavailableError(f"run {run.id} {state}, look at it again by `{show}`: {error}") from error
                time.sleep(_PAUSE_SECONDS)
            else:
                if away is not None:
                    self.say("the service is back")
                return changed

    def follow_log(self, run_id: str, task_id: str, step: int, part: LogPart = WHOLE_LOG) -> Iterator[bytes]:
        """Yield a part of a step's log until the step has ended; it goes on where it broke off.

        Raises:
            AgolaError: It cannot be read.
        """
        shown, away = 0, None
        while True:
            known = shown
            try:
                if part.since is not None or part.tail is not None:  # later it would begin elsewhere
                    begin = self.service.log_begin(run_id, task_id, step, part)
                    part = LogPart(timestamps=part.timestamps, offset=begin)
                for piece in self.service.open_log(run_id, task_id, step, follow=True, part=part):
                    away = None
                    new, known = piece[known:], max(0, known - len(piece))
                    shown += len(new)
                    if new:
                        yield new
            except AgolaError as error:
                away = away or time.monotonic()
                if not isinstance(error, AWAY) or not self._is_patient(away):
                    raise
                time.sleep(_PAUSE_SECONDS)
            else:
                return

    def _is_patient(self, away: float) -> bool:
        """Return whether the service may come back, which has been away since a time."""
        is_here = isinstance(self.service, RunService)
        return not is_here and not self.ended() and time.monotonic() - away < self.seconds
