"""`agola-core export` and `import`: a whole run service as one stream, and back."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import click
import msgspec

import agola_core
from agola_cli.options import (
    chosen_url,
    confirm,
    existing_data_dir,
    json_option,
    store_data_dir,
    store_options,
    token_file_option,
    url_option,
    yes_option,
)
from agola_cli.progress import Bar
from agola_cli.remote import connected
from agola_core.datamanager import DataManager, ExportFormat, Packing
from agola_core.errors import UnavailableError
from agola_core.progress import Meter
from agola_core.runservice import moves
from agola_core.runservice.projection import DATA_TYPES
from agola_core.standalone import open_store


@click.command("export")
@click.option("-o", "--output", default="-", show_default=True, help="A file, or - for standard output.")
@click.option(
    "--format",
    "form",
    type=click.Choice([item.value for item in ExportFormat]),
    default="native",
    show_default=True,
    help="Ours, or what Agola 0.2 reads.",
)
@click.option(
    "--compress",
    type=click.Choice([item.value for item in Packing]),
    help="How to pack the stream. By default as the file's name says: .gz, .zst, anything else not at all.",
)
@click.option("--include", default="", help="What to add, with commas between: logs, archives.")
@click.option(
    "--at", metavar="MOMENT", help="The store as it was then: a sequence, or a time with its zone (see checkpoints)."
)
@store_options
@url_option
@token_file_option
@json_option
def export_command(
    output: str,
    form: str,
    compress: str | None,
    include: str,
    at: str | None,
    data_dir: Path | None,
    storage: str | None,
    coordinator: str | None,
    url: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Write one consistent snapshot of a store; services may go on meanwhile.

    \b
    agola-core export -o backup.zst
    agola-core export -o backup.zst --include logs,archives
    agola-core export --format agola > for-agola-0.2
    agola-core export --at 2026-03-01T12:00:00+00:00 -o then.zst

    Of a past moment come the runs that had ended, and of logs and archives what is still stored.
    """
    service, format_ = chosen_url(url), ExportFormat(form)
    packing, wanted = Packing(compress) if compress else Packing.of(output), moves.parse_include(include)
    said: object
    with Bar() as bar, _target(output) as file:
        if service:
            with connected(service, token_file) as client:
                size = _copy(client.export_stream(format_, packing, wanted, at or ""), file, Meter("export", bar))
            said, text = {"size": size}, f"exported {size} bytes"
        else:
            directory = store_data_dir(data_dir, storage, coordinator)
            if at is not None:
                with agola_core.open(
                    directory, data_types=DATA_TYPES, storage=storage, coordinator=coordinator, at=at
                ) as past:
                    result = moves.export(past, file, format_, packing=packing, include=wanted, progress=bar)
            else:
                with open_store(directory, storage=storage, coordinator=coordinator, background=False) as store:
                    result = moves.export(store, file, format_, packing=packing, include=wanted, progress=bar)
            said, text = result, f"exported up to {result.sequence}: {result.size} bytes"
    if as_json and output != "-":
        click.echo(msgspec.json.encode(said))
    else:
        click.echo(text, err=True)


@click.command("import")
@click.argument("file", default="-")
@click.option("--dry-run", is_flag=True, help="Only check the file.")
@yes_option
@store_options
@url_option
@token_file_option
@json_option
def import_command(
    file: str,
    dry_run: bool,
    yes: bool,
    data_dir: Path | None,
    storage: str | None,
    coordinator: str | None,
    url: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Replace the whole content of a store by an export, ours or Agola 0.2's, or change nothing.

    Every service of the store must be in maintenance mode.

    \b
    agola-core maintenance on --wait
    agola-core import backup.zst
    agola-core maintenance off
    agola-core import --dry-run backup.zst      only check it
    """
    service = chosen_url(url)
    if not dry_run:
        if file == "-" and not yes:
            raise click.UsageError("import replaces everything in the store: say --yes")
        confirm("import replaces everything in the store", yes=yes)
    with _source(file) as stream:
        if service:
            with connected(service, token_file) as client:
                client.import_(stream, dry_run=dry_run)
            click.echo("checked" if dry_run else "imported", err=True)
            return
        with Bar() as bar, _opened(data_dir, storage, coordinator) as store:
            result = moves.import_(store, stream, dry_run=dry_run, progress=bar)
    if as_json:
        click.echo(msgspec.json.encode(result))
        return
    counts = ", ".join(f"{count} {name}" for name, count in (*result.entries.items(), *result.sections.items()))
    click.echo(f"{'checked' if dry_run else 'imported'}: {counts or 'nothing'}", err=True)


@contextmanager
def _opened(data_dir: Path | None, storage: str | None, coordinator: str | None) -> Iterator[DataManager]:
    directory = None if data_dir is None and storage and coordinator else existing_data_dir(data_dir)
    with open_store(directory, storage=storage, coordinator=coordinator, background=False) as store:
        yield store


@contextmanager
def _target(output: str) -> Iterator[IO[bytes]]:
    """Yield where an export goes; a file is there only once the whole of it is."""
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    temporary = Path(f"{output}.part")
    try:
        with temporary.open("wb") as file:
            yield cast("IO[bytes]", file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(output)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UnavailableError(f"{output}: {error.strerror}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _source(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    if not Path(file).is_file():
        raise click.UsageError(f"no file {file}")
    with Path(file).open("rb") as opened:
        yield cast("IO[bytes]", opened)


def _copy(pieces: Iterable[bytes], file: IO[bytes], meter: Meter) -> int:
    for piece in pieces:
        file.write(piece)
        meter.add(0, len(piece))
    meter.end()
    return meter.size
