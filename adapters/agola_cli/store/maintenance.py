"""`agola-core maintenance`: turns the mode on and off, and shows who is in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click
import msgspec

from agola_cli.connect.remote import connected
from agola_cli.options.common import (
    chosen_url,
    coordinator_option,
    data_dir_option,
    existing_data_dir,
    json_option,
    token_file_option,
    url_option,
)
from agola_cli.output.records import print_table
from agola_core import maintenance
from agola_core.coordinator.factory import open_coordinator
from agola_core.coordinator.port import Coordinator
from agola_core.embedded import COORDINATOR_FILE
from agola_core.errors import ConflictError, DeadlineError, disk_error
from agola_core.maintenance import MaintenanceStatus

if TYPE_CHECKING:
    from agola_http.client import Client

_WAIT_SECONDS = 300.0
_POLL_SECONDS = 0.2

wait_option = click.option("--wait", is_flag=True, help="Return when every instance is there.")
timeout_option = click.option(
    "--timeout", type=click.FloatRange(0), default=_WAIT_SECONDS, show_default=True, help="Seconds to wait at most."
)


@click.group("maintenance")
def maintenance_command() -> None:
    """Stop every service of a store for an import, and start them again.

    A new store needs none of it: `agola-core import` makes one by itself.

    \b
    agola-core maintenance on --wait
    agola-core import backup.zst
    agola-core maintenance off
    """


@maintenance_command.command("on")
@wait_option
@timeout_option
@data_dir_option
@coordinator_option
@url_option
@token_file_option
def on_command(
    wait: bool,
    timeout: float,
    data_dir: Path | None,
    coordinator: str | None,
    url: str | None,
    token_file: Path | None,
) -> None:
    """Turn maintenance mode on: services drain and stop; only export and import go on.

    \b
    agola-core maintenance on --wait
    agola-core maintenance on --url https://ci.example.org --token-file admin.txt
    """
    with _opened(data_dir and _made(data_dir), coordinator, url, token_file) as opened:
        opened.enable()
        _settle(opened, enabled=True, wait=wait, timeout=timeout)


@maintenance_command.command("off")
@wait_option
@timeout_option
@data_dir_option
@coordinator_option
@url_option
@token_file_option
def off_command(
    wait: bool,
    timeout: float,
    data_dir: Path | None,
    coordinator: str | None,
    url: str | None,
    token_file: Path | None,
) -> None:
    """Turn maintenance mode off: services start again.

    \b
    agola-core maintenance off --wait
    """
    with _opened(data_dir, coordinator, url, token_file) as opened:
        opened.disable()
        _settle(opened, enabled=False, wait=wait, timeout=timeout)


@maintenance_command.command("status")
@data_dir_option
@coordinator_option
@url_option
@token_file_option
@json_option
def status_command(
    data_dir: Path | None, coordinator: str | None, url: str | None, token_file: Path | None, as_json: bool
) -> None:
    """Show whether the mode is on, and the state of each instance.

    \b
    agola-core maintenance status --json
    """
    with _opened(data_dir, coordinator, url, token_file) as opened:
        found = opened.status()
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    click.echo(f"maintenance mode is on since {found.since}" if found.enabled else "maintenance mode is off")
    if found.instances:
        rows = [(item.name, item.host, str(item.pid), item.state, item.error) for item in found.instances]
        print_table(("INSTANCE", "HOST", "PID", "STATE", "ERROR"), rows)


class _Mode(Protocol):
    """The mode of a store, reached through its coordinator or through a service."""

    def enable(self) -> None:
        """Turn it on."""

    def disable(self) -> None:
        """Turn it off."""

    def status(self) -> MaintenanceStatus:
        """Return it, and who is in it."""

    def wait(self, *, enabled: bool, timeout: float) -> MaintenanceStatus:
        """Return it once every instance is there."""


class _Direct:
    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def enable(self) -> None:
        maintenance.enable(self._coordinator)

    def disable(self) -> None:
        maintenance.disable(self._coordinator)

    def status(self) -> MaintenanceStatus:
        return maintenance.status(self._coordinator)

    def wait(self, *, enabled: bool, timeout: float) -> MaintenanceStatus:
        return maintenance.wait_settled(self._coordinator, enabled=enabled, timeout=timeout)


class _Remote:
    def __init__(self, client: Client) -> None:
        self._client = client

    def enable(self) -> None:
        self._client.enable_maintenance()

    def disable(self) -> None:
        self._client.disable_maintenance()

    def status(self) -> MaintenanceStatus:
        return self._client.maintenance_status()

    def wait(self, *, enabled: bool, timeout: float) -> MaintenanceStatus:
        deadline = time.monotonic() + timeout
        while True:
            found = self.status()
            if found.enabled is not enabled:
                raise ConflictError(f"maintenance mode was turned {'off' if enabled else 'on'} by somebody else")
            if found.settled:
                return found
            if time.monotonic() >= deadline:
                raise DeadlineError("not every instance is there yet: see maintenance status")
            time.sleep(_POLL_SECONDS)


def _settle(opened: _Mode, *, enabled: bool, wait: bool, timeout: float) -> None:
    found = opened.wait(enabled=enabled, timeout=timeout) if wait else opened.status()
    instances = f"{len(found.instances)} instance{'' if len(found.instances) == 1 else 's'}"
    rest = "" if found.settled else "; see maintenance status, or say --wait"
    click.echo(f"maintenance mode is {'on' if enabled else 'off'}: {instances}{rest}", err=True)


def _made(data_dir: Path) -> Path:
    """Return a data directory, made if need be: services that are yet to come begin in the mode."""
    if data_dir.is_dir():
        return data_dir
    try:
        data_dir.mkdir(parents=True)
    except OSError as error:
        raise disk_error(error, f"the data directory {str(data_dir)!r} cannot be made") from error
    click.echo(f"{data_dir} is a new data directory", err=True)
    return data_dir


@contextmanager
def _opened(
    data_dir: Path | None, coordinator: str | None, url: str | None, token_file: Path | None
) -> Iterator[_Mode]:
    if service := chosen_url(url):
        with connected(service, token_file) as client:
            yield _Remote(client)
        return
    opened = open_coordinator(coordinator or str(existing_data_dir(data_dir) / COORDINATOR_FILE))
    try:
        yield _Direct(opened)
    finally:
        opened.close()
