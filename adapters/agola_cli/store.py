"""Commands on a store: status, checkpoint, garbage collection, export and import."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

import agola_core
from agola_cli.options import data_dir_option, existing_data_dir, json_option, store_data_dir, store_options
from agola_core.standalone import open_store


@click.command("status")
@data_dir_option
@json_option
def status_command(data_dir: Path | None, as_json: bool) -> None:
    """Show the state of a store."""
    with open_store(existing_data_dir(data_dir), background=False) as store:
        status = store.status()
    if as_json:
        click.echo(msgspec.json.encode(status))
        return
    for name, value in msgspec.structs.asdict(status).items():
        if name != "loops":
            click.echo(f"{name.replace('_', ' '):22}{', '.join(value) if isinstance(value, tuple) else value}")


@click.command("checkpoint")
@data_dir_option
def checkpoint_command(data_dir: Path | None) -> None:
    """Make a checkpoint now."""
    with open_store(existing_data_dir(data_dir), background=False) as store:
        store.checkpoint(force=True)
        click.echo(f"checkpointed up to {store.status().checkpointed}")


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Only list what would go, and why.")
@data_dir_option
@json_option
def gc_command(dry_run: bool, data_dir: Path | None, as_json: bool) -> None:
    """Delete objects in storage that nothing refers to any more."""
    with open_store(existing_data_dir(data_dir), background=False) as store:
        found = store.collect_garbage(dry_run=dry_run)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    for garbage in found:
        click.echo(f"{garbage.path}  {garbage.size}  {garbage.reason}")
    click.echo(f"{len(found)} objects{' would go' if dry_run else ' deleted'}", err=True)


@click.command("verify")
@click.option("--repair", is_flag=True, help="First repair what loses nothing by it, and say what was done.")
@store_options
@json_option
def verify_command(
    repair: bool, data_dir: Path | None, storage: str | None, coordinator: str | None, as_json: bool
) -> int:
    """Read and check everything that the store has; ends with 1 when something does not hold."""
    directory = store_data_dir(data_dir, storage, coordinator)
    done = agola_core.repair(directory, storage=storage, coordinator=coordinator) if repair else []
    found = agola_core.verify(directory, storage=storage, coordinator=coordinator)
    if as_json:
        click.echo(msgspec.json.encode({"repairs": done, "findings": found} if repair else found))
    else:
        for item in done:
            click.echo(f"{'repaired' if item.done else 'not repaired'}: {item.path}: {item.message}", err=True)
        for finding in found:
            click.echo(f"{finding.path} at offset {finding.offset}: {finding.message}")
        click.echo("everything holds" if not found else f"{len(found)} findings", err=True)
    return 1 if found else 0
