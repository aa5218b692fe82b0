"""Serves a store and its run service until a signal ends the process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from agola_core.address import StoreAddress
from agola_core.errors import BadRequestError
from agola_core.executor import ExecutorOptions
from agola_core.runservice.model.options import ServiceOptions
from agola_core.runtime.progress import Progress, ignore
from agola_core.standalone import Standalone
from agola_http.access.control import Access, Tokens, is_loopback
from agola_http.app import App
from agola_http.executor.executor_client import HttpExecutorDirectory
from agola_http.outbound.listen_policy import LOCAL_NETWORKS, ListenPolicy
from agola_http.server.connections.limits import Limits
from agola_http.server.connections.uvicorn_server import Server, Tls, listen, url_of
from agola_http.server.middleware import access_log


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a server.

    Attributes:
        host: The address to listen on.
        port: The port; 0 for a free one.
        tokens: Access tokens of callers.
        trust_network: Serve callers without tokens on an address that other hosts can reach.
        tls: Encryption of connections; None for plain HTTP.
        limits: Limits of requests, connections and streams.
        with_executor: Whether this process also runs tasks.
        executor_networks: Networks in which other executors may listen.
        service: Options of the run service.
        executor: Options of the executor in this process.
        access_log: The file to which each request is logged as a line; `-` for standard error, None for no log.
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
        """Refuse unsafe options.

        Raises:
            BadRequestError: Other hosts could call without a token, and no option allows that.
        """
        if not is_loopback(self.host) and not self.tokens.complete and not self.trust_network:
            raise BadRequestError(
                f"without access tokens for clients, executors and admins the service listens on loopback only, "
                f"not on {self.host!r}"
            )


def serve(
    where: Path | StoreAddress,
    options: ServeOptions,
    *,
    on_start: Callable[[str], None] = lambda _: None,
    progress: Progress = ignore,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        where: The data directory, or the store's address with it.
        options: The options.
        on_start: Called with the URL once requests are served.
        progress: Told of the rows while the readdb is built, before that.

    Raises:
        BadRequestError: The options are unsafe, or the certificate cannot be used.
        UnavailableError: The address cannot be listened on.
    """
    options.check()
    policy = ListenPolicy(options.executor_networks)
    with (
        _access_log(options.access_log),
        listen(options.host, options.port) as listener,
        contextlib.closing(HttpExecutorDirectory(policy)) as executors,
        Standalone(
            where,
            with_executor=options.with_executor,
            remote=executors,
            service=options.service,
            executor=options.executor,
            progress=progress,
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
