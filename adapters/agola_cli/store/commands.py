"""Commands on a store: status, checkpoints, garbage collection, verification."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

import agola_core
from agola_cli.connect.remote import connected
from agola_cli.options.common import (
    chosen_url,
    json_option,
    open_to_read,
    recovered_data_dir,
    store_data_dir,
    store_options,
    token_file_option,
    url_option,
)
from agola_cli.output.progress_bar import Bar
from agola_cli.output.records import format_options, print_records
from agola_core import embedded
from agola_core.datamanager import DataManager, Options
from agola_core.errors import ConflictError


@click.command("status")
@store_options
@url_option
@token_file_option
@json_option
def status_command(
    data_dir: Path | None,
    storage: str | None,
    coordinator: str | None,
    url: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Show the state of a store: how far it is synced and checkpointed, and who has it open.

    \b
    agola-core status
    agola-core status --url http://127.0.0.1:4000 --json | jq .uncheckpointed_wals
    """
    if service := chosen_url(url):
        with connected(service, token_file) as client:
            status = client.status()
    else:
        with _read(data_dir, storage, coordinator) as store:
            status = store.status()
    if as_json:
        click.echo(msgspec.json.encode(status))
        return
    for name, value in msgspec.structs.asdict(status).items():
        if name != "loops":
            click.echo(f"{name.replace('_', ' '):22}{', '.join(value) if isinstance(value, tuple) else value}")


@click.command("checkpoint")
@store_options
@url_option
@token_file_option
@json_option
def checkpoint_command(
    data_dir: Path | None,
    storage: str | None,
    coordinator: str | None,
    url: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Make a checkpoint now; services may go on meanwhile, and make their own when they are due.

    \b
    agola-core checkpoint --data-dir /var/lib/agola
    agola-core checkpoint --url http://127.0.0.1:4000
    """
    if service := chosen_url(url):
        with connected(service, token_file) as client:
            made = client.checkpoint()
        reached, number = made.checkpointed, made.number
    else:
        with _opened(data_dir, storage, coordinator) as store:
            store.checkpoint(force=True)
            status = store.status()
        reached, number = status.checkpointed, status.manifest
    if as_json:
        click.echo(msgspec.json.encode({"checkpointed": reached, "number": number}))
    else:
        click.echo(f"checkpointed up to {reached}")


@click.command("compact")
@store_options
@url_option
@token_file_option
@json_option
def compact_command(
    data_dir: Path | None,
    storage: str | None,
    coordinator: str | None,
    url: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Write the whole store anew, without what is deleted or replaced; services may go on meanwhile.

    Checkpoints do so bit by bit. The old files go with a later garbage collection, once nothing needs them.

    \b
    agola-core compact --data-dir /var/lib/agola
    agola-core gc
    """
    if service := chosen_url(url):
        with connected(service, token_file) as client:
            done = client.compact()
    else:
        with Bar() as bar, _opened(data_dir, storage, coordinator) as store:
            done = store.compact(bar)
    if as_json:
        click.echo(msgspec.json.encode(done))
    else:
        click.echo(
            f"{done.files_before} data files of {done.bytes_before} bytes are {done.files} of {done.bytes} bytes",
            err=True,
        )


@click.command("checkpoints")
@store_options
@url_option
@token_file_option
@format_options
def checkpoints_command(
    data_dir: Path | None,
    storage: str | None,
    coordinator: str | None,
    url: str | None,
    token_file: Path | None,
    output: str,
) -> None:
    """List the checkpoints that are retained, the oldest first: how far back the past can be read.

    Every state between two of them can be read, too, as long as its WALs are kept.

    \b
    agola-core checkpoints
    agola-core export --at SEQUENCE -o then.zst
    """
    if service := chosen_url(url):
        with connected(service, token_file) as client:
            found = client.checkpoints()
    else:
        with _read(data_dir, storage, coordinator) as store:
            found = store.checkpoints()
    print_records(
        output,
        found,
        ("SEQUENCE", "CREATED", "NUMBER", "ORIGIN", "FILES", "BYTES"),
        lambda item: (
            item.sequence,
            item.created.isoformat(timespec="seconds"),
            item.number,
            item.origin,
            item.files,
            item.size,
        ),
    )


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Only list what would go, and why.")
@store_options
@url_option
@token_file_option
@json_option
def gc_command(
    dry_run: bool,
    data_dir: Path | None,
    storage: str | None,
    coordinator: str | None,
    url: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Delete objects in storage that nothing refers to any more, an hour after they were written at the earliest.

    Services do it by themselves; this does it now.

    \b
    agola-core gc --dry-run
    """
    if service := chosen_url(url):
        with connected(service, token_file) as client:
            found = client.collect_garbage(dry_run=dry_run)
    else:
        with _opened(data_dir, storage, coordinator) as store:
            found = store.collect_garbage(dry_run=dry_run)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    for garbage in found:
        click.echo(f"{garbage.path}  {garbage.size}  {garbage.reason}")
    objects = f"{len(found)} object{'' if len(found) == 1 else 's'}"
    click.echo(f"{objects} would go" if dry_run else f"{objects} deleted", err=True)


@click.command("verify")
@click.option("--repair", is_flag=True, help="First repair what loses nothing by it, and say what was done.")
@store_options
@json_option
def verify_command(
    repair: bool, data_dir: Path | None, storage: str | None, coordinator: str | None, as_json: bool
) -> int:
    """Read and check everything that the store has; ends with 1 when something does not hold.

    Services may go on meanwhile; a store that does not open is checked, too. There is no --url: what a service has in
    memory and in hand would hide what it stored, so the storage and the coordinator are read without it.

    \b
    agola-core verify
    agola-core verify --repair --storage s3://ci-store/prod --coordinator etcd://e1:2379,e2:2379/agola/prod
    """
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
        findings = f"{len(found)} finding{'' if len(found) == 1 else 's'}"
        click.echo(findings if found else "everything holds", err=True)
    return 1 if found else 0


@click.command("recover")
@click.option("--force", is_flag=True, help="Also while others have the store open: they are refused from then on.")
@store_options
@json_option
def recover_command(
    force: bool, data_dir: Path | None, storage: str | None, coordinator: str | None, as_json: bool
) -> None:
    """Take the state of a store from its storage, whatever its coordinator says; stop all services first.

    For a coordinator that was restored from a backup, or is another one than before, or is gone with its machine.
    What was committed and never came to the storage is left behind.

    \b
    agola-core recover
    agola-core recover --storage s3://ci-store/prod --data-dir /var/lib/agola     on a new machine
    agola-core recover --storage s3://ci-store/prod --coordinator etcd://e1:2379,e2:2379/agola/prod
    """
    directory = recovered_data_dir(data_dir, storage, coordinator)
    if not force and (others := embedded.users(directory, storage=storage, coordinator=coordinator)):
        raise ConflictError(f"others have the store open: {', '.join(others)}; stop them, or say --force")
    with agola_core.open(
        directory, storage=storage, coordinator=coordinator, options=Options(background=False), recover=True
    ) as store:
        status = store.status()
    if as_json:
        click.echo(msgspec.json.encode({"lineage": status.lineage, "epoch": status.epoch, "manifest": status.manifest}))
    else:
        click.echo(f"recovered from the storage, as epoch {status.epoch} with manifest {status.manifest}")


def _opened(data_dir: Path | None, storage: str | None, coordinator: str | None) -> DataManager:
    directory = store_data_dir(data_dir, storage, coordinator)
    return agola_core.open(directory, storage=storage, coordinator=coordinator, options=Options(background=False))


def _read(data_dir: Path | None, storage: str | None, coordinator: str | None) -> DataManager:
    return open_to_read(store_data_dir(data_dir, storage, coordinator), storage, coordinator)
