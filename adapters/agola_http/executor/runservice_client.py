"""Client of a run service over HTTP, by which an executor reports status and moves caches and archives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import quote, urlsplit

import msgspec

from agola_core.errors import ConfigError, NotFoundError, UnavailableError
from agola_core.runservice.model.types import Executor, ExecutorTask
from agola_core.runtime.closing import Closing
from agola_http.outbound.connection import Connection
from agola_http.protocol.names import EXECUTOR_HEADER, PREFIX

_JSON = {"Content-Type": "application/json"}


class HttpRunserviceClient(Closing):
    """Calls a run service over HTTP (see `protocol.RunserviceClient`). A context manager.

    Args:
        url: The service's URL, such as `https://ci.example.org:4000`.
        token: Its token for executors; "" if it asks for none.

    Raises:
        ConfigError: The URL is malformed.
    """

    def __init__(self, url: str, token: str = "") -> None:
        check_url(url)
        self._connection = Connection(url.rstrip("/") + PREFIX, f"the run service at {url}", token=token)

    def show(self, executor_token: str) -> None:
        """Send an executor's own token with every call from now on."""
        self._connection.show(EXECUTOR_HEADER, executor_token)

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def send_executor_status(self, executor: Executor) -> None:
        """Report the executor."""
        self._post(f"/executor/{_escaped(executor.id)}", executor)

    def executor_tasks(self, executor_id: str) -> list[ExecutorTask]:
        """Return every task that the service holds for an executor."""
        try:
            return self._connection.decoded(f"/executor/{_escaped(executor_id)}/tasks", list[ExecutorTask])
        except NotFoundError as error:  # Agola in maintenance mode knows no path: that says nothing of the tasks
            raise UnavailableError(f"the run service does not list tasks now: {error}") from error

    def executor_task(self, executor_id: str, task_id: str) -> ExecutorTask:
        """Return one task."""
        return self._connection.decoded(f"/executor/{_escaped(executor_id)}/tasks/{_escaped(task_id)}", ExecutorTask)

    def send_task_status(self, executor_id: str, task: ExecutorTask) -> None:
        """Report a task's status."""
        self._post(f"/executor/{_escaped(executor_id)}/tasks/{_escaped(task.id)}", task)

    def open_workspace_archive(self, task_id: str, step: int) -> Iterator[bytes]:
        """Yield a workspace archive that another task saved."""
        return self._connection.stream("/executor/archives", [("taskid", task_id), ("step", str(step))])[1]

    def cache_exists(self, key: str) -> bool:
        """Return whether a cache is stored under exactly this key."""
        try:
            self._connection.request("HEAD", f"/executor/caches/{_escaped(key)}")
        except NotFoundError:
            return False
        return True

    def open_cache(self, key: str, *, prefix: bool) -> Iterator[bytes]:
        """Yield the newest cache whose key is, or begins with, `key`."""
        return self._connection.stream(f"/executor/caches/{_escaped(key)}", [("prefix", "")] if prefix else [])[1]

    def put_cache(self, key: str, data: Iterable[bytes], size: int | None = None) -> bool:
        """Store a cache unless the key exists; return whether it was stored."""
        length = {} if size is None else {"Content-Length": str(size)}  # without it Agola stores an empty object
        response = self._connection.request(
            "POST", f"/executor/caches/{_escaped(key)}", content=iter(data), headers=length
        )
        return response.status_code != 304

    def open_source(self, source_id: str) -> Iterator[bytes]:
        """Yield a source archive that was uploaded for a run."""
        return self._connection.stream(f"/executor/sources/{_escaped(source_id)}")[1]

    def _post(self, path: str, record: Executor | ExecutorTask) -> None:
        self._connection.request("POST", path, content=msgspec.json.encode(record), headers=_JSON)


def check_url(url: str) -> None:
    """Check that a URL is an HTTP or HTTPS URL.

    Raises:
        ConfigError: It is not; the message gives an example.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"{url!r} is not a URL such as http://127.0.0.1:4000")


def _escaped(segment: str) -> str:
    return quote(segment, safe="")
