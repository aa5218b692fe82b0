"""What a command's options name: a running service by URL, or the store in a data directory."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click
import msgspec

from agola_cli.connect.remote import connected
from agola_cli.connect.store import StoreOptions, coordinator_option, storage_option
from agola_cli.options.common import bundled, token_file_option, url_option
from agola_cli.options.directories import data_dir_option
from agola_cli.output.progress_bar import Bar
from agola_core.datamanager import DataManager
from agola_core.runservice.model.reports import RunTests
from agola_core.runservice.model.requests import WHOLE_LOG, LogPart, RunBundle, RunCreateRequest, RunQuery
from agola_core.runservice.model.types import Run, RunPhase

if TYPE_CHECKING:
    from agola_http.client import Client


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

    def open_log(
        self, run_id: str, task_id: str, step: int | None, *, follow: bool = False, part: LogPart = WHOLE_LOG
    ) -> Iterator[bytes]:
        """Yield a log."""

    def log_begin(self, run_id: str, task_id: str, step: int | None, part: LogPart) -> int:
        """Return the byte of a log at which a part of it begins."""

    def open_archive(self, run_id: str, task_id: str, step: int) -> Iterator[bytes]:
        """Yield what a step saved to the workspace."""

    def run_tests(self, bundle: RunBundle) -> RunTests:
        """Return what the tasks of a run reported about tests and coverage."""

    def put_source(self, data: Iterable[bytes]) -> str:
        """Store a source archive."""

    def wait_change(self, run: Run, timeout: float) -> Run:
        """Return a run once it has changed, or when the time is over."""


class Connection(msgspec.Struct, frozen=True):
    """An open service.

    Attributes:
        service: The service.
        live: Whether an instance of the service advances its runs.
        option: What names it again on a command line, with a space in front; "" for the default.
        kill: Kills the tasks that run in this process.
    """

    service: Service
    live: bool
    option: str
    kill: Callable[[], object] = lambda: None


class Target(msgspec.Struct, frozen=True):
    """A running service or a store.

    Attributes:
        store: The store, when no service is named.
        url: The service; None when the options name a store.
        token_file: Holds its token.
    """

    store: StoreOptions
    url: str | None = None
    token_file: Path | None = None

    def connect(self, *, read_only: bool = False) -> Client | DataManager:
        """Return a client of the service, or the store itself: both are context managers.

        Args:
            read_only: For a command that only reads: a store that cannot be written to is opened for reading.

        Raises:
            click.UsageError: There is no store.
        """
        return self.client() if self.url else self.store.open(read_only=read_only)

    def client(self) -> Client:
        """Return a client of the service.

        Raises:
            BadRequestError: Its address is malformed.
        """
        assert self.url is not None
        return connected(self.url, self.token_file)

    @contextmanager
    def open_service(self) -> Iterator[Connection]:
        """Open the service for the length of a block.

        Raises:
            BadRequestError: Its address is malformed.
            UnavailableError: It cannot be reached.
        """
        if self.url:
            with self.client() as client:
                yield Connection(client, live=True, option=f" --url {shlex.quote(self.url)}")
            return
        from agola_core.standalone import open_reader  # noqa: PLC0415 - a client needs no store

        address = self.store.used_address()
        named = {"data-dir": self.store.data_dir, "storage": self.store.storage, "coordinator": self.store.coordinator}
        option = "".join(f" --{name} {shlex.quote(str(value))}" for name, value in named.items() if value)
        with Bar(lines=True) as bar:  # the first list of a store builds its readdb
            datamanager, service = open_reader(address, progress=bar)
            try:
                yield Connection(service, live=bool(service.live_instances()), option=option)
            finally:
                service.close()
                datamanager.close()


def _target(
    url: str | None,
    token_file: Path | None,
    data_dir: Path | None,
    coordinator: str | None,
    storage: str | None = None,
) -> Target:
    return Target(StoreOptions(data_dir, storage, coordinator), _chosen_url(url), token_file)


def _chosen_url(url: str | None) -> str | None:
    """Return the service that the running command talks to; None when the command line names a store instead.

    Raises:
        click.UsageError: The command line names both.
    """
    source = click.get_current_context().get_parameter_source
    typed = click.core.ParameterSource.COMMANDLINE
    named = [name for name in ("data_dir", "storage", "coordinator") if source(name) is typed]
    if not url or not named:
        return url
    if source("url") is typed:
        raise click.UsageError(f"name it by --url or by --{named[0].replace('_', '-')}, not by both")
    return None


target_options = bundled(
    "target", _target, url_option, token_file_option, data_dir_option, storage_option, coordinator_option
)

mode_options = bundled("target", _target, url_option, token_file_option, data_dir_option, coordinator_option)
