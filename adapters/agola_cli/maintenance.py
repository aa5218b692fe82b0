"""`agola-core maintenance`: turns the mode on and off, and shows who is in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from agola_cli.options import coordinator_option, data_dir_option, existing_data_dir, json_option
from agola_cli.output import print_table
from agola_core import maintenance
from agola_core.coordinator.factory import open_coordinator
from agola_core.coordinator.port import Coordinator
from agola_core.embedded import COORDINATOR_FILE

_WAIT_SECONDS = 300.0

wait_option = click.option("--wait", is_flag=True, help="Return when every instance is there.")
timeout_option = click.option(
    "--timeout", type=click.FloatRange(0), default=_WAIT_SECONDS, show_default=True, help="Seconds to wait at most."
)


@click.group("maintenance")
def maintenance_command() -> None:
    """Stop every service of a store for an import, and start them again.

    \b
    agola-core maintenance on --wait
    agola-core import backup --yes
    agola-core maintenance off
    """


@maintenance_command.command("on")
@wait_option
@timeout_option
@data_dir_option
@coordinator_option
def on_command(wait: bool, timeout: float, data_dir: Path | None, coordinator: str | None) -> None:
    """Turn maintenance mode on: services drain and stop; only export and import go on."""
    with _opened(data_dir, coordinator) as opened:
        maintenance.enable(opened)
        _settle(opened, enabled=True, wait=wait, timeout=timeout)


@maintenance_command.command("off")
@wait_option
@timeout_option
@data_dir_option
@coordinator_option
def off_command(wait: bool, timeout: float, data_dir: Path | None, coordinator: str | None) -> None:
    """Turn maintenance mode off: services start again."""
    with _opened(data_dir, coordinator) as opened:
        maintenance.disable(opened)
        _settle(opened, enabled=False, wait=wait, timeout=timeout)


@maintenance_command.command("status")
@data_dir_option
@coordinator_option
@json_option
def status_command(data_dir: Path | None, coordinator: str | None, as_json: bool) -> None:
    """Show whether the mode is on, and the state of each instance."""
    with _opened(data_dir, coordinator) as opened:
        found = maintenance.status(opened)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    click.echo(f"maintenance mode is on since {found.since}" if found.enabled else "maintenance mode is off")
    if found.instances:
        rows = [(item.name, item.host, str(item.pid), item.state, item.error) for item in found.instances]
        print_table(("INSTANCE", "HOST", "PID", "STATE", "ERROR"), rows)


def _settle(opened: Coordinator, *, enabled: bool, wait: bool, timeout: float) -> None:
    found = maintenance.wait_settled(opened, enabled=enabled, timeout=timeout) if wait else maintenance.status(opened)
    instances = f"{len(found.instances)} instance{'' if len(found.instances) == 1 else 's'}"
    rest = "" if found.settled else "; see maintenance status, or say --wait"
    click.echo(f"maintenance mode is {'on' if enabled else 'off'}: {instances}{rest}", err=True)


@contextmanager
def _opened(data_dir: Path | None, coordinator: str | None) -> Iterator[Coordinator]:
    opened = open_coordinator(coordinator or str(existing_data_dir(data_dir) / COORDINATOR_FILE))
    try:
        yield opened
    finally:
        opened.close()
