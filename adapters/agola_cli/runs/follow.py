"""Follows runs from a terminal: their state, their logs, and Ctrl-C."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from types import FrameType

from agola_cli.connect.target import Service
from agola_cli.output.display import Display, LiveDisplay, PlainDisplay
from agola_cli.runs.log_follower import LogFollower
from agola_core.errors import AgolaError
from agola_core.runservice.model.requests import RunBundle
from agola_core.runservice.model.types import Run, RunPhase

_WAIT_SECONDS = 0.5
_STOP_TRIES = 10


class Interruption:
    """Turns Ctrl-C and SIGTERM into a request to stop; a second one ends the process at once. A context manager.

    Attributes:
        asked: Whether somebody asked.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> None:
        """Take the signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._take)

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number in self._previous:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

    def _take(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's
        if self.asked:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.asked = True


def display_for(bundle: RunBundle, *, as_json: bool) -> Display:
    """Return what shows a run: a live graph on a terminal, lines elsewhere, on standard error beside JSON."""
    if sys.stdout.isatty() and not as_json:
        return LiveDisplay(bundle)
    return PlainDisplay(bundle, err=as_json)


def follow_run(service: Service, bundle: RunBundle, display: Display, interruption: Interruption) -> Run:
    """Show a run until it ends, and return it; an interruption stops it.

    Args:
        service: Has the run.
        bundle: The run.
        display: Shows it.
        interruption: Asked for by the person.
    """
    run = bundle.run
    stopped = False
    follower = LogFollower(service, display)
    with display:
        while True:
            display.show(run)
            follower.take(run)
            if run.phase.is_finished:
                break
            if interruption.asked and not stopped:
                stopped = True
                display.say("interrupted: stopping the run")
                stop_run(service, run.id)
            run = service.wait_change(run, _WAIT_SECONDS)
        follower.join()
        display.show(run)
    return run


def stop_run(service: Service, run_id: str) -> None:
    """Stop a run, or cancel it when it has not begun; harmless when it has ended."""
    for _ in range(_STOP_TRIES):  # it may begin between the two
        with suppress(AgolaError):
            service.stop_run(run_id)
            return
        with suppress(AgolaError):
            service.change_run_phase(run_id, RunPhase.CANCELLED)
            return
