"""A world of processes on one thread: who goes on, who is paused, who crashes, and what time it is, by a seed.

A task is a greenlet. It runs until it comes to a point, where it may hand over, or waits for something. A crash is
`Crash`, raised where the process stands; from then on everything that its code tries on the way out is refused.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import greenlet

from tests.soak.trial import Violation

_START = 1000.0
_TICK = 0.0005
_MOST_POINTS = 2_000_000
_TRACE = 60


class Crash(BaseException):
    """The process has crashed."""


class Rates(NamedTuple):
    """How often something happens at a point.

    Attributes:
        switch: Another task goes on.
        crash: The process crashes.
        pause: The process is paused for up to `longest_pause` seconds.
        leap: Up to `longest_leap` seconds pass.
        fail: A call of a backend fails.
    """

    switch: float = 0.4
    crash: float = 0.0
    pause: float = 0.0
    leap: float = 0.0
    fail: float = 0.0
    longest_pause: float = 6.0
    longest_leap: float = 1.0


class Process:
    """A process of the world.

    Attributes:
        name: What traces call it.
        dead: Whether it crashed, or has ended.
        crashed: Whether it crashed.
        leaving: Whether it is to end by itself.
        tasks: Those that have not ended.
    """

    def __init__(self, name: str, mortal: bool = True) -> None:
        self.name = name
        self.mortal = mortal
        self.dead = False
        self.crashed = False
        self.leaving = False
        self.paused_until = 0.0
        self.tasks: list[Task] = []


class Task:
    """A thread of a process."""

    def __init__(self, process: Process, name: str, work: Callable[[], object], world: World) -> None:
        self.process = process
        self.name = f"{process.name}.{name}"
        self.done = False
        self.blocked = False
        self.token = 0
        self.joining: list[Task] = []
        self.thread: object = None
        self._world = world
        self._work = work
        self.greenlet = greenlet.greenlet(self._run, world.hub)

    def _run(self) -> None:
        world = self._world
        try:
            self._work()
        except Crash:
            pass
        except BaseException as error:
            world.fail(error)
        self.ended()

    def ended(self) -> None:
        self.done = True
        self.process.tasks.remove(self)
        for task in self.joining:
            self._world.wake(task)


class World:
    """Runs the tasks of all processes, one at a time.

    Args:
        seed: Decides everything.
        rates: How often what happens.

    Attributes:
        now: Seconds; the same for all processes.
        trace: Every point that was passed.
        counts: What happened, for the ledger.
        current: The task that runs; None in the hub.
    """

    def __init__(self, seed: int, rates: Rates) -> None:
        self.rng = random.Random(seed)
        self.now = _START
        self.trace: list[str] = []
        self.counts: Counter[str] = Counter()
        self.current: Task | None = None
        self.hub = greenlet.getcurrent()
        self.failure: BaseException | None = None
        self._random = self.rng.random
        self._ready: list[Task] = []
        self._timers: list[tuple[float, int, Task, int]] = []
        self._numbers = itertools.count()
        self._dying: list[Process] = []
        self._world = Process("world", mortal=False)
        self.set_rates(rates)

    def set_rates(self, rates: Rates) -> None:
        """Change how often what happens."""
        self.rates = rates
        self._crash = rates.crash
        self._pause = self._crash + rates.pause
        self._leap = self._pause + rates.leap
        self._stay = 1.0 - rates.switch

    # Called by tasks

    def point(self, label: str) -> None:
        """Pass a point: the process may crash or be paused here, and another task may go on."""
        task = self.current
        if task is None:
            return
        process = task.process
        if process.dead:
            raise Crash
        self.trace.append(f"{task.name} {label}")
        self.now += _TICK
        roll = self._random()
        if roll < self._leap and process.mortal:
            if roll < self._crash:
                self.trace.append(f"{process.name} crashes")
                self.kill(process)
                raise Crash
            if roll < self._pause:
                process.paused_until = self.now + self._random() * self.rates.longest_pause
                self.trace.append(f"{process.name} is paused")
                self.counts["pauses"] += 1
                self._hand_over(task)
            else:
                self.now += self._random() * self.rates.longest_leap
        if roll > self._stay:
            self._hand_over(task)

    def block(self, timeout: float | None) -> None:
        """Wait until the task is woken, or until some seconds have passed."""
        task = self.current
        assert task is not None, "the hub cannot wait"
        if task.process.dead:
            raise Crash
        task.token += 1
        task.blocked = True
        if timeout is not None:
            heapq.heappush(self._timers, (self.now + max(timeout, 0.0), next(self._numbers), task, task.token))
        self._switch(task)

    def sleep(self, seconds: float) -> None:
        """Let some seconds pass."""
        end = self.now + seconds
        while self.now < end:
            self.block(end - self.now)

    def join(self, task: Task) -> None:
        """Wait for the end of a task."""
        while not task.done:
            assert self.current is not None
            task.joining.append(self.current)
            self.block(None)

    def wake(self, task: Task) -> None:
        """Let a task that waits go on."""
        if task.blocked and not task.done:
            task.blocked = False
            task.token += 1
            self._ready.append(task)

    def spawn(self, name: str, work: Callable[[], object], process: Process | None = None) -> Task:
        """Start a task in a process; by default in that of the current one."""
        if process is None:
            process = self.current.process if self.current is not None else self._world
        if process.dead:
            raise Crash
        task = Task(process, name, work, self)
        process.tasks.append(task)
        self._ready.append(task)
        return task

    def immortal(self, name: str, work: Callable[[], object]) -> Task:
        """Start a task that no crash ends."""
        return self.spawn(name, work, self._world)

    def kill(self, process: Process) -> None:
        """Crash a process; its own task, when it is the current one, must raise `Crash`."""
        if not process.dead:
            process.dead = process.crashed = True
            self._dying.append(process)
            self.counts["crashes"] += 1

    def fail(self, error: BaseException) -> None:
        """End the world with an error, the first one that is told."""
        self.failure = self.failure or error

    # The hub

    def run(self, until: Callable[[], bool]) -> None:
        """Run tasks until a condition holds.

        Raises:
            Violation: Nothing can go on, or it goes on for ever.
        """
        while not until():
            task = self._next()
            if task is None:
                raise Violation("every task waits for ever")
            self.current = task
            task.greenlet.switch()
            self.current = None
            while self._dying:
                self._bury(self._dying.pop())
            if self.failure is not None:
                raise self.failure
            if len(self.trace) > _MOST_POINTS:
                raise Violation("it does not end")

    def stop(self) -> None:
        """End everything that runs."""
        while self._dying:
            self._bury(self._dying.pop())
        for task in [*self._world.tasks]:
            self._throw(task)
        self._world.dead = False

    def digest(self) -> str:
        """Return what two plays of one seed have in common."""
        return hashlib.blake2b("\n".join(self.trace).encode(), digest_size=16).hexdigest()

    def tail(self) -> str:
        """Return the newest points."""
        return "\n".join(self.trace[-_TRACE:])

    def _next(self) -> Task | None:
        ready = self._ready
        while True:
            while self._timers and self._timers[0][0] <= self.now:
                _, _, task, token = heapq.heappop(self._timers)
                if token == task.token:
                    self.wake(task)
            if ready:
                index = int(self._random() * len(ready))
                if ready[index].process.paused_until > self.now:
                    runnable = [at for at, task in enumerate(ready) if task.process.paused_until <= self.now]
                    if not runnable:
                        self._pass_time(min(task.process.paused_until for task in ready))
                        continue
                    if self._random() < 0.05:  # the others are slow while it is paused
                        self._pass_time(self.now + self._random())
                        continue
                    index = runnable[int(self._random() * len(runnable))]
                task = ready[index]
                ready[index] = ready[-1]
                ready.pop()
                if task.done:
                    continue
                return task
            if not self._timers:
                return None
            self.now = max(self.now, self._timers[0][0])

    def _pass_time(self, until: float) -> None:
        """Let time pass, but nobody who waits for a time before is passed over."""
        self.now = min(until, self._timers[0][0]) if self._timers and self._timers[0][0] > self.now else until

    def _bury(self, process: Process) -> None:
        for task in [*process.tasks]:
            self._throw(task)
        if process.tasks:
            raise Violation(f"{process.name} lives on after its crash")

    def _throw(self, task: Task) -> None:
        if not task.greenlet:  # not begun
            if not task.done:
                task.ended()
            return
        self.current = task
        task.process.dead = True
        try:
            task.greenlet.throw(Crash)
        finally:
            self.current = None

    def _hand_over(self, task: Task) -> None:
        self._ready.append(task)
        self._switch(task)

    def _switch(self, task: Task) -> None:
        self.hub.switch()
        if task.process.dead:
            raise Crash
