"""Runs the application under uvicorn, from the start of its parts to their orderly end."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from agola_core.errors import UnavailableError
from agola_core.standalone import Standalone
from agola_http.app import make_app

_SHUTDOWN_SECONDS = 2


def serve(data_dir: Path, host: str, port: int, *, on_start: Callable[[str], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        data_dir: The service's data.
        host: A loopback address.
        port: 0 for a free one.
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
    with listener, Standalone(data_dir) as standalone:
        config = uvicorn.Config(
            make_app(standalone),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            lifespan="off",
        )
        shown = f"[{host}]" if ":" in host else host
        on_start(f"http://{shown}:{listener.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listener])
