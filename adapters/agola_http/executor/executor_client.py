"""Client of an executor over HTTP, by which the run service submits tasks and fetches logs and archives.

An executor names the URL itself, so the URL is not trusted: only addresses of allowed networks are asked, the one
that was checked is the one that is connected to, redirects are not followed, and every call has a deadline.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec

from agola_core.errors import UnavailableError
from agola_core.runservice.model.protocol import ExecutorClient
from agola_core.runservice.model.types import Executor, ExecutorTask
from agola_core.runtime.threads.start import start_thread
from agola_http.outbound.listen_policy import Address, ListenPolicy
from agola_http.protocol.names import OFFSET_HEADER, PREFIX

_SECONDS = 10.0
_RESOLVE_SECONDS = 5.0
_ANSWER_BYTES = 64 * 1024
_MAX_STREAMS = 256


class HttpExecutorClient:
    """Calls one executor over HTTP (see `protocol.ExecutorClient`).

    Args:
        url: The URL that it listens on.
        token: Its token; "" for none.
        policy: Addresses that it may listen on.

    Raises:
        BadRequestError: The URL is malformed.
        ForbiddenError: It is not allowed to listen there.
        UnavailableError: Its name cannot be resolved.
    """

    def __init__(self, url: str, token: str = "", policy: ListenPolicy | None = None) -> None:
        from agola_http.outbound.connection import Connection  # noqa: PLC0415 - most services have no remote executors

        policy = policy or ListenPolicy()
        target = policy.parse(url)
        address = policy.pick(target, _resolve(target.host, target.port))
        connect = partial(
            Connection,
            target.url_at(address) + PREFIX,
            f"the executor at {url}",
            token=token,
            timeout=_SECONDS,
            answer_bytes=_ANSWER_BYTES,
            headers={"Host": urlsplit(url).netloc},
            server_name=target.host if target.scheme == "https" else "",
        )
        self._connection = connect(max_connections=4)
        self._streams = connect(max_connections=_MAX_STREAMS)  # readers of logs do not keep tasks from being told

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()
        self._streams.close()

    def submit(self, task: ExecutorTask) -> None:
        """Send a new task, or one whose `stop` was set."""
        self._connection.request("POST", "/executor", content=msgspec.json.encode(task))

    def open_log(self, task_id: str, step: int | None, *, follow: bool, offset: int = 0) -> Iterator[bytes]:
        """Yield a step's log; `step` None means the set-up's."""
        params = _log_params(task_id, step)
        if follow:
            params["follow"] = ""
        return self._from("/executor/logs", params, offset, endless=follow)

    def open_times(self, task_id: str, step: int | None, *, offset: int = 0) -> Iterator[bytes]:
        """Yield when the lines of a step's log were written."""
        return self._from("/executor/logs/times", _log_params(task_id, step), offset)

    def open_archive(self, task_id: str, step: int, *, offset: int = 0) -> Iterator[bytes]:
        """Yield the tar archive that a step saved to the workspace."""
        return self._from("/executor/archives", {"taskid": task_id, "step": str(step)}, offset)

    def _from(self, path: str, params: dict[str, str], offset: int, *, endless: bool = False) -> Iterator[bytes]:
        if not offset:
            return self._streams.stream(path, params.items(), endless=endless)[1]
        headers, pieces = self._streams.stream(path, {**params, "offset": str(offset)}.items(), endless=endless)
        return pieces if headers.get(OFFSET_HEADER) == str(offset) else _without(pieces, offset)


class HttpExecutorDirectory:
    """Finds executors by the URLs that they report (see `protocol.ExecutorDirectory`).

    Args:
        policy: Addresses that they may listen on.
    """

    def __init__(self, policy: ListenPolicy | None = None) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        self._clients: dict[str, tuple[tuple[str, str], HttpExecutorClient]] = {}

    def client(self, executor: Executor) -> ExecutorClient:
        """Return the client of a registered executor, which sends that executor the token it gave, and no other.

        Raises:
            UnavailableError: It has no URL, or one whose name cannot be resolved.
            ForbiddenError: It listens on an address that is not allowed.
        """
        with self._lock:
            found = self._clients.get(executor.id)
        place = executor.listen_url, executor.listen_token
        if found is not None and found[0] == place:
            return found[1]
        if not executor.listen_url:
            raise UnavailableError(f"executor {executor.id!r} does not say where it listens")
        client = HttpExecutorClient(executor.listen_url, executor.listen_token, self._policy)
        with self._lock:
            found = self._clients.get(executor.id)
            if found is None or found[0] != place:
                self._clients[executor.id] = place, client
                return client
        client.close()  # another thread was quicker
        return found[1]

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for _, client in clients.values():
            client.close()


def _log_params(task_id: str, step: int | None) -> dict[str, str]:
    return {"taskid": task_id, **({"setup": ""} if step is None else {"step": str(step)})}


def _resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of a host; resolves them in a separate thread, because `getaddrinfo` has no deadline."""
    answer: Future[list[Any]] = Future()

    def ask() -> None:
        try:
            answer.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            answer.set_exception(error)

    start_thread("resolve", ask)
    try:
        found = answer.result(_RESOLVE_SECONDS)
    except TimeoutError as error:
        raise UnavailableError(f"the executor's host {host!r} is not resolved in time") from error
    except OSError as error:
        raise UnavailableError(f"the executor's host {host!r} cannot be resolved: {error.strerror}") from error
    return [ipaddress.ip_address(str(place[0]).partition("%")[0]) for *_, place in found]


def _without(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    """Yield all but the first bytes."""
    for piece in pieces:
        if count < len(piece):
            yield piece[count:] if count else piece
        count = max(0, count - len(piece))
