"""Executors as the run service sees them over HTTP: Agola 0.2's interface of an executor.

An executor names the URL itself, so the URL is not trusted: only addresses of allowed networks are asked, the one
that was checked is the one that is connected to, redirects are not followed, and every call has a deadline.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import msgspec

from agola_core.errors import ForbiddenError, UnavailableError
from agola_core.runservice.protocol import ExecutorClient
from agola_core.runservice.types import Executor, ExecutorTask
from agola_http.service_client import check_url
from agola_http.wire import Connection

PRIVATE_NETWORKS = ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
"""Where executors may listen unless it is said otherwise: this machine and private networks."""

_SECONDS = 10.0


class HttpExecutorClient:
    """Asks one executor over HTTP (see `protocol.ExecutorClient`).

    Args:
        url: Where it listens.
        token: Its token; "" for none.
        networks: Where it may listen.

    Raises:
        ForbiddenError: It does not listen there.
        UnavailableError: Its name cannot be resolved.
    """

    def __init__(self, url: str, token: str = "", networks: Sequence[str] = PRIVATE_NETWORKS) -> None:
        check_url(url)
        parts = urlsplit(url)
        assert parts.hostname is not None
        address = _allowed_address(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80), networks)
        shown = f"[{address}]" if ":" in address else address
        pinned = f"{parts.scheme}://{shown}" + (f":{parts.port}" if parts.port else "") + parts.path
        self._connection = Connection(
            pinned,
            f"the executor at {url}",
            token=token,
            timeout=_SECONDS,
            headers={"Host": parts.netloc.rpartition("@")[2]},
            server_name=parts.hostname if parts.scheme == "https" else "",
        )

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def submit(self, task: ExecutorTask) -> None:
        """Hand over a new task, or one whose `stop` was set."""
        self._connection.request("POST", "/executor", content=msgspec.json.encode(task))

    def open_log(self, task_id: str, step: int | None, *, follow: bool) -> Iterator[bytes]:
        """Yield a step's log; `step` None is the set-up's."""
        params = {"taskid": task_id, **({"setup": ""} if step is None else {"step": str(step)})}
        if follow:
            params["follow"] = ""
        return self._connection.stream("/executor/logs", params, endless=follow)

    def open_archive(self, task_id: str, step: int) -> Iterator[bytes]:
        """Yield the tar archive that a step saved to the workspace."""
        return self._connection.stream("/executor/archives", {"taskid": task_id, "step": str(step)})


class HttpExecutorDirectory:
    """Finds executors by the URLs that they report (see `protocol.ExecutorDirectory`).

    Args:
        token: The executors' token; "" for none.
        networks: Where they may listen.
    """

    def __init__(self, token: str = "", networks: Sequence[str] = PRIVATE_NETWORKS) -> None:
        self._token = token
        self._networks = networks
        self._lock = threading.Lock()
        self._clients: dict[str, tuple[str, HttpExecutorClient]] = {}

    def client(self, executor: Executor) -> ExecutorClient:
        """Return the client of an executor that has reported itself.

        Raises:
            UnavailableError: It says no URL, or one whose name cannot be resolved.
            ForbiddenError: It listens where none may.
        """
        with self._lock:
            found = self._clients.get(executor.id)
        if found is not None and found[0] == executor.listen_url:
            return found[1]
        if not executor.listen_url:
            raise UnavailableError(f"executor {executor.id!r} does not say where it listens")
        client = HttpExecutorClient(executor.listen_url, self._token, self._networks)
        with self._lock:
            self._clients[executor.id] = executor.listen_url, client
        return client

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for _, client in clients.values():
            client.close()


def _allowed_address(host: str, port: int, networks: Sequence[str]) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UnavailableError(f"the executor's host {host!r} cannot be resolved: {error.strerror}") from error
    allowed = [ipaddress.ip_network(network) for network in networks]
    for *_, place in found:
        address = ipaddress.ip_address(str(place[0]).partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        if any((mapped or address) in network for network in allowed):
            return str(mapped or address)
    raise ForbiddenError(f"executors may not listen on {host!r}: allowed are {', '.join(networks)}")
