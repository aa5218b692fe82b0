"""The run service that a command talks to: one behind a URL, or the store in a data directory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from agola_cli.connect.remote import connected
from agola_cli.options.common import (
    chosen_url,
    coordinator_option,
    data_dir_option,
    storage_option,
    token_file_option,
    url_option,
    used_data_dir,
)
from agola_core.errors import NotFoundError
from agola_core.runservice.model.requests import RunBundle, RunCreateRequest, RunQuery
from agola_core.runservice.model.types import Run, RunPhase

F = TypeVar("F", bound=Callable[..., Any])


class Service(Protocol):
    """What commands need of a run service; `RunService` and the HTTP client have it."""

    def list_runs(self, query: RunQuery) -> list[Run]:
        """Return runs."""

    def get_run(self, run_id: str) -> RunBundle:
        """Return a run with its configuration."""

    def create_run(self, request: RunCreateRequest) -> RunBundle:
        """Make a run, or restart one."""

    def change_run_phase(self, run_id: str, phase: RunPhase) -> object:
        """Start or cancel a queued run."""

    def stop_run(self, run_id: str) -> object:
        """Stop a running run."""

    def approve_task(self, run_id: str, task_id: str) -> object:
        """Approve a task."""

    def delete_run(self, run_id: str) -> object:
        """Delete a run."""

    def open_log(self, run_id: str, task_id: str, step: int | None, *, follow: bool = False) -> Iterator[bytes]:
        """Yield a log."""

    def put_source(self, data: Iterable[bytes]) -> str:
        """Store a source archive."""

    def wait_change(self, run: Run, timeout: float) -> Run:
        """Return a run once it has changed, or when the time is over."""


class Connection:
    """An open service.

    Attributes:
        service: The service.
        live: Whether somebody makes its runs go on.
        option: What names it again on a command line, with a space in front; "" for the default.
    """

    def __init__(self, service: Service, *, live: bool, option: str) -> None:
        self.service = service
        self.live = live
        self.option = option


class Target:
    """What a command's options name.

    Args:
        url: A running service.
        token_file: Holds its token.
        data_dir: A data directory.
        storage: A storage URL, in the place of the directory's.
        coordinator: A coordinator URL, in the place of the directory's.
    """

    def __init__(
        self,
        url: str | None,
        token_file: Path | None,
        data_dir: Path | None,
        storage: str | None,
        coordinator: str | None,
    ) -> None:
        self.url = url
        self.token_file = token_file
        self.data_dir = data_dir
        self.storage = storage
        self.coordinator = coordinator

    @contextmanager
    def open(self) -> Iterator[Connection]:
        """Open the service for the length of a block.

        Raises:
            BadRequestError: The service is named twice, or its address is malformed.
            UnavailableError: It cannot be reached.
        """
        if self.url:
            with connected(self.url, self.token_file) as client:
                yield Connection(client, live=True, option=f" --url {self.url}")
            return
        from agola_core.standalone import open_reader  # noqa: PLC0415 - a client needs no store

        directory = used_data_dir(self.data_dir, self.storage)
        datamanager, service = open_reader(directory, storage=self.storage, coordinator=self.coordinator)
        option = f" --data-dir {directory}" if self.data_dir else ""
        try:
            yield Connection(service, live=bool(service.live_instances()), option=option)
        finally:
            service.close()
            datamanager.close()


def target_options(function: F) -> F:
    """Add the options that name a service; the command takes a `target`."""

    def with_target(**arguments: Any) -> Any:
        named = {key: arguments.pop(key) for key in ("url", "token_file", "data_dir", "storage", "coordinator")}
        named["url"] = chosen_url(named["url"])
        return function(target=Target(**named), **arguments)

    wrapped: Any = with_target
    wrapped.__doc__, wrapped.__name__ = function.__doc__, function.__name__
    wrapped.__click_params__ = getattr(function, "__click_params__", [])
    for option in (coordinator_option, storage_option, data_dir_option, token_file_option, url_option):
        wrapped = option(wrapped)
    decorated: F = wrapped
    return decorated


def resolve_run(service: Service, run_id: str) -> str:
    """Return the id of a run that is named by it, or by `last`.

    Raises:
        NotFoundError: Nothing has run yet.
    """
    if run_id != "last":
        return run_id
    found = service.list_runs(RunQuery(limit=1))
    if not found:
        raise NotFoundError("nothing has run yet")
    return found[0].id
