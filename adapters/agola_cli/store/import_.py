"""`agola-core import`: restores an export into a new store, or replaces the content of an existing one."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, cast

import click
import msgspec

import agola_core
from agola_cli.connect.remote import connected
from agola_cli.connect.target import Target, target_options
from agola_cli.options.common import confirm, json_option, yes_option
from agola_cli.output.progress_bar import Bar
from agola_cli.store.destination import Destination
from agola_core.datamanager import ImportResult
from agola_core.errors import BadRequestError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.artifacts import copying
from agola_core.runservice.artifacts.copying import Comparison
from agola_core.runtime.progress import Meter, Progress

_QUESTION = "import replaces everything in the store"


class Outcome(msgspec.Struct, frozen=True):
    """What `import` did, as it says it.

    Attributes:
        entries: How many objects of each type.
        sections: How many items of each section.
        exported_at: The sequence that the export names.
        size: Bytes of the export.
        copied: How many logs and archives were copied.
        artifacts: How those of the other storage stand here now.
    """

    entries: dict[str, int] = {}
    sections: dict[str, int] = {}
    exported_at: str = ""
    size: int = 0
    copied: int | msgspec.UnsetType = msgspec.UNSET
    artifacts: Comparison | msgspec.UnsetType = msgspec.UNSET


@click.command("import")
@click.argument("file", required=False)
@click.option("--dry-run", is_flag=True, help="Only check the export, and count what would be copied.")
@click.option(
    "--from-url", metavar="URL", help="Export from this running service, Agola's or ours, instead of reading FILE."
)
@click.option(
    "--copy-from",
    metavar="STORAGE",
    help="Also copy the logs and workspace archives of this object storage: posix:///DIR, posixflat:///DIR, s3://...; "
    "without FILE nothing else.",
)
@yes_option
@target_options
@json_option
def import_command(
    file: str | None,
    dry_run: bool,
    from_url: str | None,
    copy_from: str | None,
    yes: bool,
    target: Target,
    as_json: bool,
) -> int:
    """Restore an export, ours or Agola 0.2's, into a new store, or instead of a store's whole content.

    A store that does not exist yet is made. In one that does, every service must be in maintenance mode, and
    either everything is replaced or nothing is changed. A copy that was cut off goes on where it was. Ends with 1 when
    logs or archives are not all there.

    \b
    agola-core import backup.zst --data-dir /var/lib/agola      on a new machine
    agola-core import --dry-run backup.zst                      only check it
    agola-core maintenance on --wait
    agola-core import backup.zst
    agola-core maintenance off
    \b
    agola-core import --from-url http://agola:4000 --copy-from posixflat:///srv/agola --data-dir /var/lib/agola
    """
    if file is not None and from_url is not None:
        raise click.UsageError(f"name FILE or --from-url, not both: {file} and {from_url}")
    if target.url and (copy_from or from_url):
        raise click.UsageError("--from-url and --copy-from write to a store, not to a service: name it by --data-dir")
    destination = None if target.url else Destination(target.store)
    outcome = Outcome()
    with _opened(copy_from) as artifacts, Bar() as bar:
        if file is None and from_url is None and artifacts is not None:
            assert destination is not None
            outcome = _copied(outcome, artifacts, destination, bar, dry_run=dry_run)
        else:
            with _source(file or "-", from_url, target.token_file, bar) as stream:
                if destination is None:
                    with target.client() as client, _how_to_enter_maintenance():
                        if not dry_run and not client.maintenance_status().enabled:
                            raise BadRequestError("not in maintenance mode")
                        _ask(file or "-", yes=yes or dry_run)
                        result = client.import_(stream, dry_run=dry_run)
                else:
                    result = _import(
                        destination, stream, artifacts, bar, file or from_url or "-", dry_run=dry_run, yes=yes
                    )
            outcome = msgspec.convert(msgspec.structs.asdict(result), Outcome)
            if artifacts is not None and destination is not None:  # what ended meanwhile
                outcome = _copied(outcome, artifacts, destination, bar, dry_run=dry_run)
    _say(outcome, dry_run=dry_run, as_json=as_json)
    return 1 if outcome.artifacts and outcome.artifacts.missing and not dry_run else 0


def _import(
    destination: Destination,
    source: IO[bytes],
    artifacts: ObjectStorage | None,
    progress: Progress,
    name: str,
    *,
    dry_run: bool,
    yes: bool,
) -> ImportResult:
    if dry_run:
        return destination.check(source, progress)
    there, stream = destination.exists(), source
    if there:
        with _how_to_enter_maintenance():
            stream = destination.check_replaceable(source)
    if source.seekable() and (artifacts is not None or (there and not yes)):
        destination.check(stream, progress)
        source.seek(0)
        stream = source
    if there:
        _ask(name, yes=yes)
    if artifacts is not None:  # first: until the import nothing refers to them, and the store serves none without
        with destination.opened_storage() as target:
            copying.copy(artifacts, target, progress)
    if not there:
        return destination.create(stream, progress)
    with _how_to_enter_maintenance():
        return destination.replace(stream, progress)


@contextmanager
def _how_to_enter_maintenance() -> Iterator[None]:
    try:
        yield
    except BadRequestError as error:
        if "not in maintenance mode" not in str(error):
            raise
        raise BadRequestError(f"{error}: first run `agola-core maintenance on --wait`, and `off` afterwards") from error


def _copied(
    outcome: Outcome, artifacts: ObjectStorage, destination: Destination, progress: Progress, *, dry_run: bool
) -> Outcome:
    with destination.opened_storage(make=not dry_run) as target:
        copied = 0 if dry_run else copying.copy(artifacts, target, progress)
        return msgspec.structs.replace(outcome, copied=copied, artifacts=copying.compare(artifacts, target))


def _say(outcome: Outcome, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(outcome))
        return
    if outcome.size:
        counts = ", ".join(f"{count} {name}" for name, count in (*outcome.entries.items(), *outcome.sections.items()))
        click.echo(f"{'checked' if dry_run else 'imported'}: {counts or 'nothing'}", err=True)
    found = outcome.artifacts
    if not found:
        return
    click.echo(f"logs and archives: {found.objects} objects, {found.size} bytes there", err=True)
    if not found.missing:
        click.echo("all of them are here, in their sizes", err=True)
    elif dry_run:
        click.echo(f"{found.missing} objects, {found.missing_size} bytes would be copied", err=True)
    else:
        click.echo(f"{found.missing} of them are not here, such as {', '.join(found.examples)}", err=True)


def _ask(file: str, *, yes: bool) -> None:
    if file == "-" and not yes:
        raise click.UsageError(f"{_QUESTION}: say --yes")
    confirm(_QUESTION, yes=yes)


@contextmanager
def _opened(storage: str | None) -> Iterator[ObjectStorage | None]:
    if storage is None:
        yield None
        return
    scheme, _, path = storage.rpartition("://")
    if scheme in {"", "posix", "posixflat"} and not Path(path).is_dir():
        raise click.UsageError(f"--copy-from: no directory {path}")
    with closing(agola_core.open_storage(storage)) as opened:
        yield opened


@contextmanager
def _source(file: str, from_url: str | None, token_file: Path | None, progress: Progress) -> Iterator[IO[bytes]]:
    if from_url is not None:
        with connected(from_url, token_file) as client, tempfile.TemporaryFile() as spool:
            meter = Meter("export", progress)
            for piece in client.export_stream():
                spool.write(piece)
                meter.add(0, len(piece))
            meter.end()
            spool.seek(0)
            yield cast("IO[bytes]", spool)
        return
    if file == "-":
        yield sys.stdin.buffer
        return
    if not Path(file).is_file():
        raise click.UsageError(f"no file {file}")
    with Path(file).open("rb") as opened:
        yield cast("IO[bytes]", opened)
