"""Opens stores for asynchronous callers, and closes them, in worker threads."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ParamSpec, Protocol, TypeVar

import anyio
from anyio import to_thread

from agola_core import embedded, events
from agola_core.aio.events import AsyncEventStore
from agola_core.aio.store import AsyncDataManager

_P = ParamSpec("_P")
_Opened = TypeVar("_Opened", bound="_Closable")
_Wrapper = TypeVar("_Wrapper")


class _Closable(Protocol):
    def close(self) -> None: ...


def _opener(
    opening: Callable[_P, _Opened], wrapper: Callable[[_Opened], _Wrapper]
) -> Callable[_P, AbstractAsyncContextManager[_Wrapper]]:
    @functools.wraps(opening)
    @asynccontextmanager
    async def opened(*args: _P.args, **kwargs: _P.kwargs) -> AsyncIterator[_Wrapper]:
        store = await to_thread.run_sync(functools.partial(opening, *args, **kwargs))
        try:
            yield wrapper(store)
        finally:
            with anyio.CancelScope(shield=True):  # whoever is cancelled closes the store nevertheless
                await to_thread.run_sync(store.close)

    return opened


open = _opener(embedded.open, AsyncDataManager)  # noqa: A001 - the name in agola_core
open_events = _opener(events.open_events, AsyncEventStore)
