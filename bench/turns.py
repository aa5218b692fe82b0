"""Works that take turns, so that a slow moment of the machine hits all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from bench.result import Line

LEAST = 5
Work = Callable[[int], None]
"""One operation; it is told the number of its thread."""


class Turn(NamedTuple):
    """What one turn showed: operations a second, and the process's time on the processor for one, in microseconds."""

    rate: float
    processor: float


class Turns(NamedTuple):
    """All turns of one work."""

    rates: list[float]
    processor: list[float]


def take_turns(
    works: dict[str, tuple[Work, int]], *, seconds: float = 0.4, budget: float = 30.0, least: int = LEAST
) -> dict[str, Turns]:
    """Let works take turns until the budget is used up.

    Args:
        works: Each with its number of threads.
        seconds: What a turn of one work takes.
        budget: After how many seconds no further turn begins.
        least: How many turns there are in any case.
    """
    found: dict[str, Turns] = {name: Turns([], []) for name in works}
    began, taken = time.monotonic(), 0
    while taken < least or time.monotonic() - began < budget:
        for name, (work, threads) in works.items():
            turn = take_turn(work, threads, seconds)
            found[name].rates.append(turn.rate)
            found[name].processor.append(turn.processor)
        taken += 1
    return found


def take_turn(work: Work, threads: int, seconds: float) -> Turn:
    """Let threads repeat a work for some time."""
    counts = [0] * threads
    start = threading.Barrier(threads + 1)
    end = 0.0

    def repeat(thread: int) -> None:
        done = 0
        if threads > 1:
            start.wait()
        while time.perf_counter() < end:
            work(thread)
            done += 1
        counts[thread] = done

    workers = [threading.Thread(target=repeat, args=(index,)) for index in range(threads)]
    if threads > 1:
        for worker in workers:
            worker.start()
    processor, began = time.process_time(), time.perf_counter()
    end = began + seconds
    if threads == 1:
        repeat(0)
    else:
        start.wait()
        for worker in workers:
            worker.join()
    taken = time.perf_counter() - began
    return Turn(sum(counts) / taken, 1e6 * (time.process_time() - processor) / max(1, sum(counts)))


def compared(name: str, ours: Turns, reference: Turns, goal: float, unit: str = "per second") -> Line:
    """Return the line of two works' rates."""
    return Line(
        name,
        ours.rates,
        reference.rates,
        goal,
        unit,
        processor=ours.processor,
        reference_processor=reference.processor,
    )
