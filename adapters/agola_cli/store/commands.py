"""Commands on a store: status, checkpoints, compaction, garbage collection, verification and recovery."""

from __future__ import annotations

import click
import msgspec

import agola_core
from agola_cli.connect.caller import caller
from agola_cli.connect.store import QUIET, StoreOptions, store_options
from agola_cli.connect.target import Target, target_options
from agola_cli.options.common import json_option
from agola_cli.output.progress_bar import Bar
from agola_cli.output.records import counted, format_options, print_records
from agola_core import embedded
from agola_core.datamanager import DataManager, LastVerify, read_verify
from agola_core.errors import AgolaError, ConflictError
from agola_core.runservice.archive.store_history import LastExport, read_export
from agola_http.protocol.records import ServiceStatus


@click.command("status")
@target_options
@json_option
def status_command(target: Target, as_json: bool) -> None:
    """Show the state of a store: how far it is, who has it open, and when it was last exported and verified.

    \b
    agola-core status
    agola-core status --url http://127.0.0.1:4000 --json | jq .uncheckpointed_wals
    """
    with target.connect(read_only=True) as store:
        status = _of_directory(store) if isinstance(store, DataManager) else store.status()
    if as_json:
        click.echo(msgspec.json.encode(status))
        return
    for name, value in msgspec.structs.asdict(status).items():
        if name != "loops":
            click.echo(f"{name.replace('_', ' '):22}{_said(value)}")


def _of_directory(store: DataManager) -> ServiceStatus:
    status = store.status()
    # This command itself has it open, but for a moment only.
    others = tuple(name for name in status.instances if name != store.options.instance)
    told = {**msgspec.structs.asdict(status), "instances": others}
    try:
        return ServiceStatus(**told, last_export=read_export(store.storage), last_verify=read_verify(store.storage))
    except AgolaError:
        return ServiceStatus(**told, storage_answers=False)


def _said(value: object) -> object:
    match value:
        case None:
            return "none known"
        case bool():
            return "yes" if value else "no"
        case tuple():
            return ", ".join(value) or "none"
        case LastExport():
            return f"{value.time:%Y-%m-%d %H:%M:%S} UTC by {value.by or 'a service'}: {value.form}, {value.size} bytes"
        case LastVerify():
            found = counted(range(value.found), "finding") if value.found else "no problems found"
            read = f"{counted(range(value.objects), 'object')} with {value.size} bytes read in {value.seconds:.1f} s"
            return f"{value.time:%Y-%m-%d %H:%M:%S} UTC by {value.by or 'somebody'}: {found}, {read}"
    return value


@click.command("checkpoint")
@target_options
@json_option
def checkpoint_command(target: Target, as_json: bool) -> None:
    """Make a checkpoint now; services keep running, and make their own when they are due.

    \b
    agola-core checkpoint --data-dir /var/lib/agola
    agola-core checkpoint --url http://127.0.0.1:4000
    """
    with target.connect() as store:
        if isinstance(store, DataManager):
            store.checkpoint(force=True)
            status = store.status()
            reached, number = status.checkpointed, status.manifest
        else:
            made = store.checkpoint()
            reached, number = made.checkpointed, made.number
    if as_json:
        click.echo(msgspec.json.encode({"checkpointed": reached, "number": number}))
    else:
        click.echo(f"checkpointed up to {reached}")


@click.command("compact")
@target_options
@json_option
def compact_command(target: Target, as_json: bool) -> None:
    """Rewrite the whole store without deleted and replaced objects; services keep running.

    Checkpoints do so bit by bit. A later garbage collection deletes the old files, once nothing needs them.

    \b
    agola-core compact --data-dir /var/lib/agola
    agola-core gc
    """
    with Bar() as bar, target.connect() as store:
        done = store.compact(bar) if isinstance(store, DataManager) else store.compact()
    if as_json:
        click.echo(msgspec.json.encode(done))
    else:
        click.echo(
            f"{done.files_before} data files of {done.bytes_before} bytes are {done.files} of {done.bytes} bytes",
            err=True,
        )


@click.command("checkpoints")
@target_options
@format_options
def checkpoints_command(target: Target, output: str) -> None:
    """List the retained checkpoints, oldest first: how far back the past can be read.

    Every state between two of them can be read, too, as long as its WALs are kept.

    \b
    agola-core checkpoints
    agola-core export --at SEQUENCE -o then.zst
    """
    with target.connect(read_only=True) as store:
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
@click.option("--dry-run", is_flag=True, help="Only list what would be deleted, and why.")
@target_options
@json_option
def gc_command(dry_run: bool, target: Target, as_json: bool) -> None:
    """Delete objects in storage that nothing refers to any more, an hour after they were written at the earliest.

    Services do it by themselves; this does it now.

    \b
    agola-core gc --dry-run
    """
    with target.connect() as store:
        found = store.collect_garbage(dry_run=dry_run)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    for garbage in found:
        click.echo(f"{garbage.path}  {garbage.size}  {garbage.reason}")
    click.echo(f"{counted(found, 'object')} {'would be ' if dry_run else ''}deleted", err=True)


@click.command("verify")
@click.option("--repair", is_flag=True, help="First repair everything that can be repaired without data loss.")
@store_options
@json_option
def verify_command(repair: bool, store: StoreOptions, as_json: bool) -> int:
    """Read and check everything in a store; exits with 1 if a check fails.

    Services keep running; a store that does not open is checked, too. There is no --url: what a service has in
    memory would hide what it stored, so the storage and the coordinator are read without it. What was found is kept
    in the store, for `status` and the page, unless it is read-only or too damaged to be sure what it is.

    \b
    agola-core verify
    agola-core verify --repair --storage s3://ci-store/prod --coordinator etcd://e1:2379,e2:2379/agola/prod
    """
    address = store.address()
    done = agola_core.repair(address) if repair else []
    found = agola_core.verify(address, noted_by=caller())
    if as_json:
        click.echo(msgspec.json.encode({"repairs": done, "findings": found} if repair else found))
    else:
        for item in done:
            click.echo(f"{'repaired' if item.done else 'not repaired'}: {item.path}: {item.message}", err=True)
        for finding in found:
            click.echo(f"{finding.path} at offset {finding.offset}: {finding.message}")
        click.echo(counted(found, "finding") if found else "no problems found", err=True)
    return 1 if found else 0


@click.command("recover")
@click.option(
    "--force",
    is_flag=True,
    help="Recover even while others have the store open: their writes are refused from then on.",
)
@store_options
@json_option
def recover_command(force: bool, store: StoreOptions, as_json: bool) -> None:
    """Take the state of a store from its storage, whatever its coordinator says; stop all services first.

    For a coordinator that was restored from a backup, was replaced, or was lost with its machine.
    What was committed and never reached the storage is lost.

    \b
    agola-core recover
    agola-core recover --storage s3://ci-store/prod --data-dir /var/lib/agola     on a new machine
    agola-core recover --storage s3://ci-store/prod --coordinator etcd://e1:2379,e2:2379/agola/prod
    """
    address = store.address(recover=True)
    if not force and (others := embedded.users(address)):
        raise ConflictError(f"others have the store open: {', '.join(others)}; stop them, or say --force")
    with agola_core.open(address, options=QUIET, recover=True) as opened:
        status = opened.status()
    if as_json:
        click.echo(msgspec.json.encode({"lineage": status.lineage, "epoch": status.epoch, "manifest": status.manifest}))
    else:
        click.echo(f"recovered from the storage, as epoch {status.epoch} with manifest {status.manifest}")
