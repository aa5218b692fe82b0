"""`agola-core maintenance`: turns maintenance mode on and off, and shows the state of each instance."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from agola_cli.connect.target import Target, mode_options
from agola_cli.options.common import bundled, json_option
from agola_cli.options.directories import existing_data_dir
from agola_cli.options.types import Decimal
from agola_cli.output.records import counted, print_table
from agola_core import maintenance
from agola_core.address import StoreAddress
from agola_core.coordinator.factory import open_coordinator
from agola_core.errors import ConflictError, DeadlineError, disk_error
from agola_core.maintenance import MaintenanceStatus

if TYPE_CHECKING:
    from agola_http.client import Client

_WAIT_SECONDS = 300.0
_POLL_SECONDS = 0.2

patience_options = bundled(
    "patience",
    lambda wait, timeout: timeout if wait else None,
    click.option("--wait", is_flag=True, help="Wait until every instance has changed its mode."),
    click.option(
        "--timeout",
        type=Decimal(0),
        default=_WAIT_SECONDS,
        show_default=True,
        help="The most seconds to wait.",
    ),
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
@patience_options
@mode_options
def on_command(patience: float | None, target: Target) -> None:
    """Turn maintenance mode on: services drain and stop; only export and import keep working.

    \b
    agola-core maintenance on --wait
    agola-core maintenance on --url https://ci.example.org --token-file admin.txt
    """
    if not target.url and target.store.data_dir is not None:
        _make(target.store.data_dir)
    with _opened(target) as mode:
        mode.enable()
        _settle(mode, enabled=True, patience=patience)


@maintenance_command.command("off")
@patience_options
@mode_options
def off_command(patience: float | None, target: Target) -> None:
    """Turn maintenance mode off: services start again.

    \b
    agola-core maintenance off --wait
    """
    with _opened(target) as mode:
        mode.disable()
        _settle(mode, enabled=False, patience=patience)


@maintenance_command.command("status")
@mode_options
@json_option
def status_command(target: Target, as_json: bool) -> None:
    """Show whether the mode is on, and the state of each instance.

    \b
    agola-core maintenance status --json
    """
    with _opened(target) as mode:
        found = mode.status()
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    click.echo(f"maintenance mode is on since {found.since}" if found.enabled else "maintenance mode is off")
    if found.instances:
        rows = [(item.name, item.host, str(item.pid), item.state, item.error) for item in found.instances]
        print_table(("INSTANCE", "HOST", "PID", "STATE", "ERROR"), rows)


class _Mode(msgspec.Struct, frozen=True):
    """The mode of a store, reached through its coordinator or through a service."""

    enable: Callable[[], object]
    disable: Callable[[], object]
    status: Callable[[], MaintenanceStatus]
    wait: Callable[..., MaintenanceStatus]


@contextmanager
def _opened(target: Target) -> Iterator[_Mode]:
    if target.url:
        with target.client() as client:
            yield _Mode(
                client.enable_maintenance, client.disable_maintenance, client.maintenance_status, partial(_poll, client)
            )
        return
    directory = None if target.store.coordinator else existing_data_dir(target.store.data_dir)
    address = StoreAddress(directory, coordinator=target.store.coordinator)
    with closing(open_coordinator(address.coordinator_url)) as opened:
        yield _Mode(
            partial(maintenance.enable, opened),
            partial(maintenance.disable, opened),
            partial(maintenance.status, opened),
            partial(maintenance.wait_settled, opened),
        )


def _poll(client: Client, *, enabled: bool, timeout: float) -> MaintenanceStatus:
    deadline = time.monotonic() + timeout
    while True:
        found = client.maintenance_status()
        if found.enabled is not enabled:
            raise ConflictError(f"maintenance mode was turned {'off' if enabled else 'on'} by somebody else")
        if found.settled:
            return found
        if time.monotonic() >= deadline:
            raise DeadlineError("not every instance is there yet: see maintenance status")
        time.sleep(_POLL_SECONDS)


def _settle(mode: _Mode, *, enabled: bool, patience: float | None) -> None:
    found = mode.status() if patience is None else mode.wait(enabled=enabled, timeout=patience)
    rest = "" if found.settled else "; see maintenance status, or say --wait"
    click.echo(
        f"maintenance mode is {'on' if enabled else 'off'}: {counted(found.instances, 'instance')}{rest}", err=True
    )


def _make(data_dir: Path) -> None:
    """Make a data directory that does not exist: services that are started later begin in the mode."""
    if data_dir.is_dir():
        return
    try:
        data_dir.mkdir(parents=True)
    except OSError as error:
        raise disk_error(error, f"the data directory {str(data_dir)!r} cannot be made") from error
    click.echo(f"{data_dir} is a new data directory", err=True)
