"""What campaigns share: a trial's outcome, and processes that tell what they did through a pipe."""

from __future__ import annotations

import json
import os
import selectors
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn


class Violation(AssertionError):  # noqa: N818 - what a campaign looks for, not an error of the program
    """A promise that the store did not keep."""


class Skipped(Exception):  # noqa: N818 - an outcome, not an error
    """The campaign cannot run here; says why."""


class Campaign(NamedTuple):
    """A kind of trial.

    Attributes:
        name: What the command line calls it.
        goal: What is counted, in words.
        trial: Runs one trial from a seed and returns what it counted; raises `Violation`, or `Skipped`.
    """

    name: str
    goal: str
    trial: Callable[[int], Counter[str]]


class Ended(NamedTuple):
    """A child process that has ended.

    Attributes:
        status: Its exit status; -N when signal N ended it.
        said: What it said, one record a call.
    """

    status: int
    said: list[Any]


Say = Callable[[Any], None]


def run_child(work: Callable[[Say], None]) -> Ended:
    """Run a function in a forked process and return what it said, however it ended.

    The parent must not have opened a store, nor started a thread.

    Args:
        work: Called in the child with a function that tells the parent a JSON value at once, before it returns.
    """
    (ended,) = run_children([work])
    return ended


def run_children(works: Sequence[Callable[[Say], None]]) -> list[Ended]:
    """Run functions in forked processes at the same time (see `run_child`)."""
    started = [start_child(work) for work in works]
    _read_all(started)
    return [one.end() for one in started]


def _read_all(started: Sequence[Started]) -> None:
    """Read from all processes until they end, so that no full pipe holds one up; without threads, for forks to come."""
    with selectors.DefaultSelector() as selector:
        for one in started:
            selector.register(one, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                assert isinstance(key.fileobj, Started)
                if not key.fileobj.read():
                    selector.unregister(key.fileobj)


class Started:
    """A forked process that runs.

    Args:
        pid: Its id.
        reading: The end of its pipe.
    """

    def __init__(self, pid: int, reading: int) -> None:
        self._pid = pid
        self._reading = reading
        self._said = b""
        self._ended: Ended | None = None
        self._status: int | None = None

    def stopped(self) -> bool:
        """Wait until it has stopped itself, or ended; return whether it stopped."""
        _, status = os.waitpid(self._pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return True
        self._status = status
        return False

    def send(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self._ended is None and self._status is None:
            os.kill(self._pid, number)

    def fileno(self) -> int:
        """Return its pipe, for a selector."""
        return self._reading

    def read(self) -> bool:
        """Wait for what it says next, and keep it; return False at the end."""
        piece = os.read(self._reading, 1 << 16)
        self._said += piece
        return bool(piece)

    def end(self) -> Ended:
        """Wait for its end, and return what came of it."""
        if self._ended is None:
            while self.read():
                pass
            os.close(self._reading)
            said = [json.loads(line) for line in self._said.split(b"\n")[:-1]]
            if self._status is None:
                self._status = os.waitpid(self._pid, 0)[1]
            self._ended = Ended(os.waitstatus_to_exitcode(self._status), said)
        return self._ended


def start_child(work: Callable[[Say], None]) -> Started:
    """Start a function in a forked process (see `run_child`)."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(work, writing)
    os.close(writing)
    return Started(pid, reading)


def _child(work: Callable[[Say], None], writing: int) -> NoReturn:
    code = 0
    try:
        work(lambda value: _write_all(writing, json.dumps(value).encode() + b"\n"))
    except BaseException:
        _write_all(writing, json.dumps(["error", traceback.format_exc()]).encode() + b"\n")
        code = 1
    os._exit(code)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
