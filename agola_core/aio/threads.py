"""Worker threads for blocking calls of the core, a bounded number at a time.

A call that has begun is not broken off: whoever is cancelled meanwhile is cancelled when it has ended, so that nobody
is left without knowing what became of a write.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio
from anyio import to_thread

THREADS = 64
"""Calls of one store at the same time, by default. Writers that wait together share a transaction."""

_P = ParamSpec("_P")
_Result = TypeVar("_Result")


class Threads:
    """Runs calls in worker threads; the others wait for their turn.

    Args:
        limit: The most calls at a time.
    """

    def __init__(self, limit: int) -> None:
        self._limiter = anyio.CapacityLimiter(limit)

    async def run(self, call: Callable[[], _Result]) -> _Result:
        """Return what a call returns, or raise what it raises."""
        return await to_thread.run_sync(call, limiter=self._limiter)


def in_thread(
    method: Callable[Concatenate[Any, _P], _Result],
) -> Callable[Concatenate[Any, _P], Coroutine[Any, Any, _Result]]:
    """Return the asynchronous form of a method, for a class with `threads` and `wrapped`."""

    async def call(self: Any, /, *args: _P.args, **kwargs: _P.kwargs) -> _Result:
        result: _Result = await self.threads.run(functools.partial(method, self.wrapped, *args, **kwargs))
        return result

    functools.update_wrapper(call, method)
    return call
