"""`agola-core export`: writes one consistent snapshot of a whole store as a stream."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, cast

import click
import msgspec

import agola_core
from agola_cli.connect.caller import caller
from agola_cli.connect.store import StoreOptions
from agola_cli.connect.target import Target, target_options
from agola_cli.options.common import json_option
from agola_cli.output.progress_bar import Bar
from agola_core.datamanager import Compression, DataManager, ExportFormat, ExportResult, PastStore
from agola_core.errors import AgolaError, UnavailableError
from agola_core.runservice.archive import transfer
from agola_core.runservice.archive.projection import is_run_service
from agola_core.runservice.archive.store_history import LastExport, record_export
from agola_core.runtime.progress import Meter


@click.command("export")
@click.option("-o", "--output", default="-", show_default=True, help="The file to write; - for standard output.")
@click.option(
    "--format",
    "form",
    type=click.Choice([item.value for item in ExportFormat]),
    default="native",
    show_default=True,
    help="The native format, or the one that Agola 0.2 reads.",
)
@click.option(
    "--compress",
    type=click.Choice([item.value for item in Compression]),
    help="The compression of the stream; by default by the file's suffix (.gz, .zst), otherwise none.",
)
@click.option("--include", default="", help="Parts to add, such as logs,archives.")
@click.option(
    "--at",
    metavar="MOMENT",
    help="Export the store as it was then: a sequence, or a time such as 2026-03-01T12:00:00+00:00 (see checkpoints).",
)
@target_options
@json_option
def export_command(
    output: str,
    form: str,
    compress: str | None,
    include: str,
    at: str | None,
    target: Target,
    as_json: bool,
) -> None:
    """Write one consistent snapshot of a store, also while services use it.

    \b
    agola-core export -o backup.zst
    agola-core export -o backup.zst --include logs,archives
    agola-core export --format agola > for-agola-0.2
    agola-core export --at 2026-03-01T12:00:00+00:00 -o then.zst

    When it was last exported is kept in the store, for `status` and the page; not for a past moment, or where it
    cannot be written to. A store of a library's own data is exported all the same, without --include. Of a past
    moment come the runs that had ended, and of logs and archives what is still stored.
    """
    format_ = ExportFormat(form)
    compression, wanted = Compression(compress) if compress else Compression.of(output), transfer.parse_include(include)
    said: object
    if target.url:
        with Bar() as bar, _target(output) as file, target.client() as client:
            size = _copy(client.export_stream(format_, compression, wanted, at or ""), file, Meter("export", bar))
        said, text = {"size": size}, f"exported {size} bytes"
    else:
        with _opened(target.store, at) as store:
            with Bar() as bar, _target(output) as file:
                result = _export(store, file, format_, compression, wanted, bar)
            if isinstance(store, DataManager) and not target.store.address().is_read_only():
                _note(store, LastExport(datetime.now(UTC), format_.value, result.size, caller()))
        said, text = result, f"exported up to {result.sequence}: {result.size} bytes"
    if as_json and output != "-":
        click.echo(msgspec.json.encode(said))
    else:
        click.echo(text, err=True)


def _export(
    store: DataManager | PastStore,
    file: IO[bytes],
    form: ExportFormat,
    compression: Compression,
    include: frozenset[transfer.Include],
    bar: Bar,
) -> ExportResult:
    if is_run_service(store.data_types):
        return transfer.export(store, file, form, compression=compression, include=include, progress=bar)
    if include:
        raise click.UsageError(f"--include: the store holds {', '.join(store.data_types)}, no runs")
    return store.export(file, form, compression=compression, progress=bar)


def _note(store: DataManager, export: LastExport) -> None:
    """Keep in the store when it was exported; a note that cannot be written breaks no export."""
    try:
        record_export(store.storage, export)
    except AgolaError as error:
        click.echo(f"when the store was exported is not noted in it: {error}", err=True)


def _opened(store: StoreOptions, at: str | None) -> DataManager | PastStore:
    if at is None:
        return store.open(read_only=True)
    return agola_core.open(store.address(), at=at)


@contextmanager
def _target(output: str) -> Iterator[IO[bytes]]:
    """Yield the file of an export; a named file appears only once it is complete."""
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
        existed = Path(output).exists()
        temporary.replace(output)
        if existed:
            click.echo(f"{output}: the file that was there is replaced", err=True)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UnavailableError(f"{output}: {error.strerror}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _copy(pieces: Iterable[bytes], file: IO[bytes], meter: Meter) -> int:
    for piece in pieces:
        file.write(piece)
        meter.add(0, len(piece))
    meter.end()
    return meter.size
