"""`agola-core ls|get|put|history|watch`: reads and writes the objects of any store, and lists its changes."""

from __future__ import annotations

import base64
import sys
import time
from pathlib import Path

import click
import msgspec

import agola_core
from agola_cli.connect.store import StoreOptions, store_options
from agola_cli.options.common import json_option
from agola_cli.options.types import Whole
from agola_cli.output.records import echo_foreign
from agola_core import Put
from agola_core.datamanager import DataManager, ObjectChange, PastStore, changes_of
from agola_core.errors import BadRequestError, ForbiddenError, NotFoundError
from agola_core.runservice.archive.projection import is_run_service

_POLL_SECONDS = 0.2

at_option = click.option(
    "--at",
    metavar="MOMENT",
    help="Read the store as it was then: a sequence, or a time such as 2026-03-01T12:00:00+00:00 (see checkpoints).",
)


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change of one object, as it is printed.

    Attributes:
        action: `put` or `delete`.
        size: Bytes of the object.
    """

    sequence: str
    time: str
    action: str
    data_type: str
    id: str
    size: int | None = None


@click.command("ls")
@click.argument("data_type", metavar="[TYPE]", required=False)
@click.option("--start-after", default="", metavar="ID", help="Only ids that sort after this one.")
@click.option("--limit", type=Whole(0), help="The most objects to list.")
@at_option
@store_options
@json_option
def ls_command(
    data_type: str | None, start_after: str, limit: int | None, at: str | None, store: StoreOptions, as_json: bool
) -> None:
    """List the types of a store, or the ids and sizes of a type's objects.

    \b
    agola-core ls --data-dir notes
    agola-core ls note --data-dir notes --limit 10
    """
    with _opened(store, at) as opened:
        if data_type is None:
            types = opened.stored_types if isinstance(opened, DataManager) else opened.data_types
            if as_json:
                click.echo(msgspec.json.encode(types))
            else:
                for name in types:
                    echo_foreign(name)
            return
        for object_id, data in opened.list_objects(data_type, start_after, limit):
            if as_json:
                click.echo(msgspec.json.encode({"id": object_id, "size": len(data)}))
            else:
                echo_foreign(f"{len(data):>10}  {object_id}")


@click.command("get")
@click.argument("data_type", metavar="TYPE")
@click.argument("object_id", metavar="ID")
@at_option
@store_options
@json_option
def get_command(data_type: str, object_id: str, at: str | None, store: StoreOptions, as_json: bool) -> int:
    """Print an object's bytes as they are stored. Ends with 1 when there is no such object.

    \b
    agola-core get note n1 --data-dir notes
    agola-core get note n1 --data-dir notes --at 2026-03-01T12:00:00+00:00
    """
    with _opened(store, at) as opened:
        try:
            data, _ = opened.read_object(data_type, object_id)
        except NotFoundError as error:
            click.echo(f"agola-core: {error}", err=True)
            return 1
    if as_json:
        encoded = base64.b64encode(data).decode()
        click.echo(msgspec.json.encode({"data_type": data_type, "id": object_id, "data": encoded}))
    else:
        sys.stdout.buffer.write(data)
    return 0


@click.command("put")
@click.argument("data_type", metavar="TYPE")
@click.argument("object_id", metavar="ID")
@click.argument("file", default="-")
@store_options
def put_command(data_type: str, object_id: str, file: str, store: StoreOptions) -> None:
    """Store the bytes of FILE, or of standard input, as an object of a store that has this type.

    A run service's own objects are left to it. A program makes the store and its types:

    \b
    python -c "import agola_core; agola_core.open('notes', data_types=['note']).close()"
    agola-core put note n1 note.txt --data-dir notes
    echo hello | agola-core put note n1 --data-dir notes
    """
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise BadRequestError(f"{file}: {error.strerror}") from error
    with store.open() as opened:
        if is_run_service(opened.data_types):
            raise ForbiddenError("the store is a run service's: its objects are written by the service alone")
        token = opened.write_wal([Put(data_type, object_id, data)])
    click.echo(f"stored as {token.sequence}", err=True)


@click.command("history")
@click.argument("data_type", metavar="[TYPE]", required=False)
@click.argument("object_id", metavar="[ID]", required=False)
@store_options
@json_option
def history_command(data_type: str | None, object_id: str | None, store: StoreOptions, as_json: bool) -> None:
    """List the changes that are kept, oldest first: of the store, of a type, or of one object.

    \b
    agola-core history --data-dir notes
    agola-core history note n1 --data-dir notes
    """
    with store.open(read_only=True) as opened:
        changes = opened.history(data_type or "", object_id or "")
        if changes.after.counter:
            click.echo(f"changes before {changes.after.next()} are no longer kept", err=True)
        for change in changes:
            _print(change, as_json=as_json)


@click.command("watch")
@click.argument("data_type", metavar="[TYPE]", required=False)
@click.argument("object_id", metavar="[ID]", required=False)
@click.option(
    "--after", metavar="SEQUENCE", help="Begin after this change, as history prints it; by default with new changes."
)
@store_options
@json_option
def watch_command(
    data_type: str | None, object_id: str | None, after: str | None, store: StoreOptions, as_json: bool
) -> None:
    """Print changes as they are committed, by any process, until Ctrl-C.

    \b
    agola-core watch --data-dir notes
    agola-core watch note --data-dir notes --after SEQUENCE --json
    """
    with store.open() as opened, opened.watch(after) as feed:
        click.echo(f"watching from {feed.position}", err=True)
        while True:
            while (event := feed.next(0.0)) is not None:
                for change in changes_of(event, data_type or "", object_id or ""):
                    _print(change, as_json=as_json)
            time.sleep(_POLL_SECONDS)  # nothing follows the coordinator in a process that only looks
            opened.refresh()


def _opened(store: StoreOptions, at: str | None) -> DataManager | PastStore:
    if at is None:
        return store.open(read_only=True)
    return agola_core.open(store.address(), at=at)


def _print(change: ObjectChange, *, as_json: bool) -> None:
    made = change.time.isoformat(timespec="seconds")
    size = None if change.data is None else len(change.data)
    action = "delete" if size is None else "put"
    if as_json:
        line = Change(str(change.sequence), made, action, change.data_type, change.id, size)
        click.echo(msgspec.json.encode(line))
    else:
        bytes_ = "" if size is None else f"  {size} bytes"
        echo_foreign(f"{change.sequence}  {made}  {action:6}  {change.data_type} {change.id}{bytes_}")
