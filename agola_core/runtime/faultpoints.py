"""Named fault points, at which tests can kill or stop the process, or make a step fail.

Every step that changes a coordinator or a storage passes a fault point first, so a crash test can interrupt a
process between any two steps. While nothing is armed, a point costs the read of one global variable.

Arm points in the process with `arm`, or for a child process by the environment variable `AGOLA_FAULTPOINT`,
a comma-separated list of `NAME[:HIT[:ACTION]]`: the point's name, on which pass it triggers (from 1, default 1)
and what happens then (`kill`, `stop` or `raise`; default `kill`).
"""

from __future__ import annotations

import enum
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agola_core.errors import UnavailableError

VARIABLE = "AGOLA_FAULTPOINT"


class FaultAction(enum.StrEnum):
    """What happens at an armed fault point."""

    KILL = "kill"
    STOP = "stop"
    RAISE = "raise"


class InjectedFaultError(UnavailableError):
    """Raised by a fault point that was armed with `FaultAction.RAISE`."""


_names: set[str] = set()
_hook: Callable[[str], None] | None = None


def declare(*names: str) -> None:
    """Register fault points; a module declares its own at import.

    Args:
        names: Such as `commit.before-txn`: procedure, dot, step.
    """
    _names.update(names)


def declared() -> frozenset[str]:
    """Return the names of all fault points in imported modules."""
    return frozenset(_names)


def reach(name: str) -> None:
    """Pass a fault point.

    Args:
        name: A declared name.
    """
    if _hook is not None:
        _hook(name)


@contextmanager
def arm(hook: Callable[[str], None]) -> Iterator[None]:
    """Call `hook(name)` at every fault point while the block runs; its errors are raised there.

    Args:
        hook: Called in the thread that reaches the point.
    """
    global _hook
    previous, _hook = _hook, hook
    try:
        yield
    finally:
        _hook = previous


def trigger(spec: str) -> Callable[[str], None]:
    """Return the hook for a specification (see the module's docstring).

    Args:
        spec: Such as `commit.before-txn:3:kill`.
    """
    remaining: dict[str, int] = {}
    actions: dict[str, FaultAction] = {}
    for part in filter(None, (item.strip() for item in spec.split(","))):
        name, _, rest = part.partition(":")
        hit, _, action = rest.partition(":")
        remaining[name] = int(hit or 1)
        actions[name] = FaultAction(action or FaultAction.KILL)
    lock = threading.Lock()

    def hook(name: str) -> None:
        with lock:
            left = remaining.get(name, 0)
            if not left:
                return
            remaining[name] = left - 1
        if left == 1:
            _act(name, actions[name])

    return hook


def _act(name: str, action: FaultAction) -> None:
    match action:
        case FaultAction.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        case FaultAction.STOP:
            os.kill(os.getpid(), signal.SIGSTOP)
        case FaultAction.RAISE:
            raise InjectedFaultError(f"injected fault at {name}")


if VARIABLE in os.environ:
    _hook = trigger(os.environ[VARIABLE])
