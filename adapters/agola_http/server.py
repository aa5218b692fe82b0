"""Runs an application under uvicorn, from the start of its parts to their orderly end."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from agola_core.errors import BadRequestError, UnavailableError
from agola_core.executor import ExecutorOptions
from agola_core.runservice.model.options import ServiceOptions
from agola_core.standalone import Standalone
from agola_http.access import Access, Tokens, is_loopback
from agola_http.app import App
from agola_http.connection import SAFE, Connection
from agola_http.dispatch import access_log
from agola_http.executor_client import HttpExecutorDirectory
from agola_http.limits import Limits
from agola_http.listenurl import LOCAL_NETWORKS, ListenPolicy

_SHUTDOWN_SECONDS = 2


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """How connections are encrypted.

    Attributes:
        certificate: The PEM file of the certificate and its chain.
        key: The PEM file of its key.
        client_authority: The PEM file of the authority whose certificates clients must show; None asks for none.
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a server listens.

    Attributes:
        host: The address.
        port: The port; 0 for a free one.
        tokens: The tokens of callers.
        trust_network: Serve callers without tokens on an address that other hosts reach.
        tls: How connections are encrypted; None leaves them plain.
        limits: What one client may take.
        with_executor: Whether tasks are also run in this process.
        executor_networks: Where executors elsewhere may listen.
        service: How the run service behaves.
        executor: How the executor in this process behaves.
        access_log: The file that every request is a line of; `-` for standard error, None for none.
    """

    host: str = "127.0.0.1"
    port: int = 4000
    tokens: Tokens = Tokens()
    trust_network: bool = False
    tls: Tls | None = None
    limits: Limits = Limits()
    with_executor: bool = True
    executor_networks: tuple[str, ...] = LOCAL_NETWORKS
    service: ServiceOptions = ServiceOptions()
    executor: ExecutorOptions = ExecutorOptions()
    access_log: str | None = None

    def check(self) -> None:
        """Refuse what is not safe.

        Raises:
            BadRequestError: Other hosts could call without a token, and nobody said that this is meant.
        """
        if not is_loopback(self.host) and not self.tokens.complete and not self.trust_network:
            raise BadRequestError(
                f"without access tokens for clients, executors and admins the service listens on loopback only, "
                f"not on {self.host!r}"
            )


class Server(uvicorn.Server):
    """Serves an application on a socket that listens.

    Ends on a signal without raising it once more: what it serves is still to be closed.

    Args:
        app: The application.
        limits: What one client may take.
        tls: How connections are encrypted.
        end_streams: Called before open connections are waited for, so that the streams among them end.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, *, tls: Tls | None = None, end_streams: Callable[[], None] = lambda: None
    ) -> None:
        self._end_streams = end_streams
        connection = type("Connection", (Connection,), {"header_seconds": limits.header_seconds})
        config = uvicorn.Config(
            app,
            http=connection,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            headers=list(SAFE),
            proxy_headers=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            timeout_keep_alive=limits.keep_alive_seconds,
            limit_concurrency=limits.connections,
            h11_max_incomplete_event_size=limits.header_bytes,
            lifespan="off",
            ssl_certfile=tls.certificate if tls else None,
            ssl_keyfile=tls.key if tls else None,
            ssl_ca_certs=str(tls.client_authority) if tls and tls.client_authority else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if tls and tls.client_authority else ssl.CERT_NONE,
        )
        try:
            config.load()
        except OSError as error:
            raise BadRequestError(f"the certificate or its key cannot be used: {error.strerror or error}") from error
        super().__init__(config)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then everything else."""
        await run_in_threadpool(self._end_streams)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM while the server runs; in another thread than the main one, none."""
        try:
            previous = [(number, signal.signal(number, self.handle_exit)) for number in (signal.SIGINT, signal.SIGTERM)]
        except ValueError:  # not the main thread
            previous = []
        try:
            yield
        finally:
            for number, handler in previous:
                signal.signal(number, handler)


def serve(
    data_dir: Path,
    options: ServeOptions,
    *,
    storage: str | None = None,
    coordinator: str | None = None,
    on_start: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        data_dir: The service's data.
        options: How it listens.
        storage: A storage URL, in the place of the directory's.
        coordinator: A coordinator URL, in the place of the directory's.
        on_start: Called with the URL once requests are answered.

    Raises:
        BadRequestError: The options are not safe, or the certificate cannot be used.
        UnavailableError: The address cannot be listened on.
    """
    options.check()
    policy = ListenPolicy(options.executor_networks)
    with (
        _access_log(options.access_log),
        listen(options.host, options.port) as listener,
        contextlib.closing(HttpExecutorDirectory(policy)) as executors,
        Standalone(
            data_dir,
            storage=storage,
            coordinator=coordinator,
            with_executor=options.with_executor,
            remote=executors,
            service=options.service,
            executor=options.executor,
        ) as standalone,
    ):
        access = Access(options.tokens, trust_network=options.trust_network)
        app = App(standalone, access, options.limits, policy)

        def end_streams() -> None:
            app.end_streams()
            standalone.end_streams()

        server = Server(app, options.limits, tls=options.tls, end_streams=end_streams)
        on_start(url_of(listener, options.host, tls=options.tls is not None))
        server.run(sockets=[listener])


@contextlib.contextmanager
def _access_log(path: str | None) -> Iterator[None]:
    if path is None:
        yield
        return
    try:
        handler = logging.StreamHandler() if path == "-" else logging.FileHandler(path)
    except OSError as error:
        raise BadRequestError(f"the access log {path!r} cannot be written: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    access_log.addHandler(handler)
    access_log.setLevel(logging.INFO)
    access_log.propagate = False
    try:
        yield
    finally:
        access_log.removeHandler(handler)
        handler.close()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UnavailableError: The address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # without it asyncio sets no TCP_NODELAY
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise UnavailableError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def url_of(listener: socket.socket, host: str, *, tls: bool = False) -> str:
    """Return the URL of a socket that listens."""
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{listener.getsockname()[1]}"
