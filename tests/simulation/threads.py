"""What the store's code takes for `threading` and `time` while it runs in a world."""

from __future__ import annotations

import concurrent.futures
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from agola_core.datamanager.sstable import tiers
from agola_core.runtime import clock
from tests.simulation.scheduler import Crash, Task, World

_world: World


def _wait(waiting: list[Task], deadline: float | None) -> bool:
    """Wait to be woken; return False when the time is over."""
    task = _world.current
    if task is None:
        raise AssertionError("the hub would wait for a lock")
    left = None if deadline is None else deadline - _world.now
    if left is not None and left <= 0:
        return False
    waiting.append(task)
    try:
        _world.block(left)
    finally:
        if task in waiting:
            waiting.remove(task)
    return True


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None or timeout < 0 else _world.now + timeout


class Lock:
    """A lock; any task may release it."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: list[Task] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._held:
            if not blocking:
                return False
            deadline = _deadline(timeout)
            while self._held:
                if not _wait(self._waiting, deadline):
                    return False
        self._held = True
        return True

    def release(self) -> None:
        self._held = False
        for task in self._waiting:
            _world.wake(task)

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class RLock:
    """A lock that its task may take again."""

    def __init__(self) -> None:
        self.owner: Task | None = None
        self.count = 0
        self._waiting: list[Task] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        current = _world.current
        if self.count and self.owner is not current:
            if not blocking:
                return False
            deadline = _deadline(timeout)
            while self.count:
                if not _wait(self._waiting, deadline):
                    return False
        self.owner = current
        self.count += 1
        return True

    def release(self) -> None:
        if self.owner is not _world.current:
            return  # on the way out of a crash in a wait
        self.count -= 1
        if not self.count:
            self.owner = None
            for task in self._waiting:
                _world.wake(task)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Condition:
    """A condition on a lock."""

    def __init__(self, lock: RLock | None = None) -> None:
        self._lock = lock or RLock()
        self._waiting: list[Task] = []
        self.acquire, self.release = self._lock.acquire, self._lock.release
        self.__dict__["notifyAll"] = self.notify_all

    def wait(self, timeout: float | None = None) -> bool:
        count, self._lock.count = self._lock.count, 1
        self._lock.release()
        task = _world.current
        assert task is not None
        self._waiting.append(task)
        try:
            _world.block(timeout)
        finally:
            notified = task not in self._waiting
            if not notified:
                self._waiting.remove(task)
        self._lock.acquire()
        self._lock.count = count
        return notified

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        deadline = _deadline(timeout)
        while not (result := predicate()):
            left = None if deadline is None else deadline - _world.now
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        for task in self._waiting[:n]:
            self._waiting.remove(task)
            _world.wake(task)

    def notify_all(self) -> None:
        self.notify(len(self._waiting))

    def __enter__(self) -> Self:
        self._lock.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


class Event:
    """A flag that can be waited for."""

    def __init__(self) -> None:
        self._set = False
        self._waiting: list[Task] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        for task in self._waiting:
            _world.wake(task)

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        deadline = _deadline(timeout)
        while not self._set:
            if not _wait(self._waiting, deadline):
                break
        return self._set


class Semaphore:
    """A counted lock."""

    def __init__(self, value: int = 1) -> None:
        self._left = value
        self._waiting: list[Task] = []

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        deadline = _deadline(timeout)
        while not self._left:
            if not blocking or not _wait(self._waiting, deadline):
                return False
        self._left -= 1
        return True

    def release(self) -> None:
        self._left += 1
        for task in self._waiting:
            _world.wake(task)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Thread:
    """A thread: a task of the process that starts it."""

    def __init__(
        self,
        target: Callable[..., object],
        name: str = "thread",
        args: tuple[Any, ...] = (),
        daemon: bool = False,
    ) -> None:
        self.name = name
        self._target = target
        self._args = args
        self._task: Task | None = None

    def start(self) -> None:
        self._task = _world.spawn(self.name, lambda: self._target(*self._args))
        self._task.thread = self

    def join(self, timeout: float | None = None) -> None:
        task, current = self._task, _world.current
        assert task is not None
        deadline = _deadline(timeout)
        while not task.done:
            if current is None or not _wait(task.joining, deadline):
                return

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.done


class _Done:
    def __init__(self, work: Callable[[], Any]) -> None:
        self._error: Exception | None = None
        self._value = None
        try:
            self._value = work()
        except Exception as error:
            self._error = error

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value

    def cancel(self) -> bool:
        return False


class InlineExecutor:
    """Runs everything at once."""

    def __init__(self, *arguments: object, **options: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *arguments: Any) -> _Done:
        return _Done(lambda: work(*arguments))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _sleep(seconds: float) -> None:
    _world.sleep(seconds)


def _current_thread() -> object:
    return _world.current.thread if _world.current is not None else None


THREADING = SimpleNamespace(
    Lock=Lock,
    RLock=RLock,
    Condition=Condition,
    Event=Event,
    Semaphore=Semaphore,
    BoundedSemaphore=Semaphore,
    Thread=Thread,
    current_thread=_current_thread,
    get_ident=lambda: id(_world.current),
)
TIME = SimpleNamespace(
    monotonic=lambda: _world.now,
    perf_counter=lambda: _world.now,
    time=lambda: _world.now,
    sleep=_sleep,
)
_IN_PLACE_OF = (
    ("threading", threading, THREADING),
    ("time", time, TIME),
    ("boot_clock", clock.boot_clock, lambda: _world.now),
    ("ThreadPoolExecutor", concurrent.futures.ThreadPoolExecutor, InlineExecutor),
)
_PLACES = (
    "agola_core.datamanager",
    "agola_core.coordinator.lock",
    "agola_core.runtime.threads.leader_queue",
    "agola_core.runtime.threads.parallel",
    "agola_core.runtime.threads.start",
)
_FLOOR = 200
"""Bytes in the place of `tiers.FLOOR`, so that small stores have several runs."""

_MORE_PLACES = (
    "agola_core.runtime.clock",
    "agola_core.runtime.context",
    "agola_core.runtime.progress",
    "agola_core.runtime.threads.supervisor",
)


def _refuse(thread: threading.Thread) -> None:
    """A real thread runs beside the world, whose order it breaks: the module that starts it belongs to `_PLACES`."""
    raise AssertionError(f"thread {thread.name!r} would be a real one")


@contextmanager
def installed(world: World) -> Iterator[None]:
    """Let the store's code run in a world while the block runs."""
    global _world
    _world = world
    replaced: list[tuple[Any, str, Any]] = []
    for name, module in [*sys.modules.items()]:
        if not name.startswith((*_PLACES, *_MORE_PLACES)):
            continue
        for attribute, real, stand_in in _IN_PLACE_OF:
            if getattr(module, attribute, None) is real:
                setattr(module, attribute, stand_in)
                replaced.append((module, attribute, real))
    replaced.append((tiers, "FLOOR", tiers.FLOOR))
    tiers.FLOOR = _FLOOR
    replaced.append((threading.Thread, "start", threading.Thread.start))
    threading.Thread.start = _refuse  # type: ignore[method-assign]
    told = sys.unraisablehook
    sys.unraisablehook = lambda found: None if isinstance(found.exc_value, Crash) else told(found)
    try:
        yield
    finally:
        sys.unraisablehook = told
        for module, attribute, real in replaced:
            setattr(module, attribute, real)
