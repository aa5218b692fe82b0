"""Runs an executor as a process of its own: the loops of `agola_core.executor` and its HTTP interface."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from agola_core.errors import BadRequestError, ConfigError
from agola_core.executor import Executor, ExecutorOptions
from agola_core.executor.drivers.port import Driver
from agola_http.access.control import Access, Tokens, is_loopback
from agola_http.executor.app import make_executor_app
from agola_http.executor.runservice_client import HttpRunserviceClient, check_url
from agola_http.server.connections.limits import Limits
from agola_http.server.connections.uvicorn_server import Server, listen, url_of


class ListenOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The address on which an executor listens for its run service, and the token that the service must send.

    Attributes:
        host: An address of this machine; without a token it must be a loopback address.
        port: 0 for a free one.
        url: The URL that the service is told to call; "" for the address itself.
        token: The bearer token to ask for; "" for the executor's own, which the service learns at registration.
        ask: Whether to ask for a token at all; Agola's run service sends none.
    """

    host: str = "127.0.0.1"
    port: int = 0
    url: str = ""
    token: str = ""
    ask: bool = True

    def check(self) -> None:
        """Refuse options that are unsafe or cannot work.

        Raises:
            ConfigError: Other hosts could call without a token, or the URL is malformed.
        """
        if not self.ask and not is_loopback(self.host):
            raise ConfigError(f"without a token an executor listens on loopback only, not on {self.host!r}")
        if self.url:
            check_url(self.url)
        elif self.host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not listened on
            raise ConfigError(f"{self.host} is every address of this machine: say by which URL the service reaches it")


def run_executor(
    directory: Path,
    service_url: str,
    driver: Driver,
    *,
    service_token: str = "",
    listening: ListenOptions | None = None,
    options: ExecutorOptions | None = None,
    stop_tasks: bool = False,
    on_start: Callable[[Executor, str], None] = lambda *_: None,
) -> None:
    """Run an executor until SIGTERM or SIGINT.

    Args:
        directory: The directory of its id and its tasks.
        service_url: The URL of the run service.
        driver: The driver that runs the commands.
        service_token: The token that the service asks executors for.
        listening: The address and the token.
        options: The options of the executor.
        stop_tasks: Whether to stop running tasks at exit; otherwise they continue, and the next start adopts them.
        on_start: Called with the executor and its URL once it accepts tasks.

    Raises:
        ConfigError: An address or URL is wrong, or the address is open to others without a token.
        UnavailableError: The address cannot be listened on.
        APIError: The service refuses this executor.
    """
    listening = listening or ListenOptions()
    listening.check()
    try:
        Tokens(client=[listening.token] if listening.token else [])
    except BadRequestError as error:
        raise ConfigError(f"the token that the service must show: {error}") from error
    limits = Limits()
    with (
        HttpRunserviceClient(service_url, service_token) as service,
        listen(listening.host, listening.port) as listener,
    ):
        url = listening.url or url_of(listener, listening.host)
        chosen = msgspec.structs.replace(options or ExecutorOptions(), listen_url=url, listen_token=listening.token)
        executor = Executor(directory, service, driver, chosen)
        service.show(executor.token)
        # A URL that is given may have a host's name; otherwise only what a page elsewhere could not send is taken.
        access = Access(Tokens(client=[executor.token] if listening.ask else []), trust_network=bool(listening.url))
        try:
            executor.start()
            on_start(executor, url)
            Server(make_executor_app(executor, access, limits), limits).run(sockets=[listener])
        finally:
            executor.close(stop_tasks=stop_tasks)
