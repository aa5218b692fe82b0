"""A bounded parallel map, for concurrent requests to a remote storage with ordered results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def parallel_map(work: Callable[[T], R], items: Iterable[T], *, workers: int = 8) -> Iterator[R]:
    """Yield `work(item)` for each item, in order, while threads work ahead.

    At most `workers` results are buffered, which bounds memory. An error of `work` is raised at its item's position;
    later items may have been processed. A single item costs no thread.

    Args:
        work: Called in threads; must be thread-safe.
        items: Consumed in the caller's thread, as far ahead as needed.
        workers: Maximum number of concurrent calls.

    Example:
        >>> list(parallel_map(abs, [-1, 2, -3]))
        [1, 2, 3]
    """
    waiting = iter(items)
    first = list(islice(waiting, 2))
    if len(first) < 2:
        yield from map(work, first)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="parallel-map") as pool:
        waiting = chain(first, waiting)
        running: deque[Future[R]] = deque(pool.submit(work, item) for item in islice(waiting, workers))
        try:
            while running:
                done = running.popleft().result()
                running.extend(pool.submit(work, item) for item in islice(waiting, 1))
                yield done
        finally:
            for future in running:
                future.cancel()
