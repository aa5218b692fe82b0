"""Runs the application under uvicorn, from the start of its parts to their orderly end."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.concurrency import run_in_threadpool

from agola_core.errors import UnavailableError
from agola_core.standalone import Standalone
from agola_http.app import make_app

_SHUTDOWN_SECONDS = 2


def serve(
    data_dir: Path,
    host: str,
    port: int,
    *,
    storage: str | None = None,
    coordinator: str | None = None,
    on_start: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        data_dir: The service's data.
        host: A loopback address.
        port: 0 for a free one.
        storage: A storage URL, in the place of the directory's.
        coordinator: A coordinator URL, in the place of the directory's.
        on_start: Called with the URL once requests are answered.

    Raises:
        UnavailableError: The address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UnavailableError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    with listener, Standalone(data_dir, storage=storage, coordinator=coordinator) as standalone:
        config = uvicorn.Config(
            make_app(standalone),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            lifespan="off",
        )
        shown = f"[{host}]" if ":" in host else host
        on_start(f"http://{shown}:{listener.getsockname()[1]}")
        _Server(config, standalone.end_streams).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends on a signal without raising it once more: what it serves is still to be closed.

    Args:
        config: As uvicorn takes it.
        end_streams: Called before open connections are waited for, so that the streams among them end.
    """

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then everything else."""
        await run_in_threadpool(self._end_streams)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM while the server runs."""
        taken = (signal.SIGINT, signal.SIGTERM)
        previous = [signal.signal(number, self.handle_exit) for number in taken]
        try:
            yield
        finally:
            for number, handler in zip(taken, previous, strict=True):
                signal.signal(number, handler)
