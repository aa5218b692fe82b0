"""`agola-core import`: an export becomes the content of a store, of a new one or in the place of what is there."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import click
import msgspec

import agola_core
from agola_cli.options import (
    chosen_url,
    confirm,
    default_data_dir,
    json_option,
    store_options,
    token_file_option,
    url_option,
    yes_option,
)
from agola_cli.progress import Bar
from agola_cli.remote import connected
from agola_core import embedded, maintenance
from agola_core.datamanager import DataManager, ImportResult, Options
from agola_core.datamanager.exportreader import peek
from agola_core.errors import BadRequestError
from agola_core.progress import Progress
from agola_core.runservice import moves
from agola_core.runservice.projection import DATA_TYPES

_QUIET = Options(background=False)
_QUESTION = "import replaces everything in the store"


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
    """Restore an export, ours or Agola 0.2's, into a new store, or in the place of a store's whole content.

    A store that does not exist yet is made. In one that does, every service must be in maintenance mode, and
    either everything is replaced or nothing is changed.

    \b
    agola-core import backup.zst --data-dir /var/lib/agola      on a new machine
    agola-core import --dry-run backup.zst                      only check it
    agola-core maintenance on --wait
    agola-core import backup.zst
    agola-core maintenance off
    """
    service = chosen_url(url)
    with _source(file) as stream, Bar() as bar:
        if service:
            _ask(file, yes=yes or dry_run)
            with connected(service, token_file) as client:
                result = client.import_(stream, dry_run=dry_run)
        else:
            place = Place(data_dir, storage, coordinator)
            if dry_run:
                result = place.check(stream, bar)
            elif place.exists():
                _ask(file, yes=yes)
                result = place.replace(stream, bar)
            else:
                result = place.create(stream, bar)
    if as_json:
        click.echo(msgspec.json.encode(result))
        return
    counts = ", ".join(f"{count} {name}" for name, count in (*result.entries.items(), *result.sections.items()))
    click.echo(f"{'checked' if dry_run else 'imported'}: {counts or 'nothing'}", err=True)


class Place:
    """Where an export is imported to.

    Args:
        data_dir: A data directory.
        storage: A storage URL, in the place of the directory's.
        coordinator: A coordinator URL, in the place of the directory's.
    """

    def __init__(self, data_dir: Path | None, storage: str | None, coordinator: str | None) -> None:
        self._storage = storage
        self._coordinator = coordinator
        self._directory = (
            None if data_dir is None and storage and coordinator else data_dir or default_data_dir(Path.cwd())
        )

    def exists(self) -> bool:
        """Return whether there is a store already."""
        if self._directory is not None and not self._directory.exists():
            return False
        return embedded.exists(self._directory, storage=self._storage, coordinator=self._coordinator)

    def check(self, stream: IO[bytes], progress: Progress) -> ImportResult:
        """Check an export against the store that is there, or for a new one."""
        if self.exists():
            data_types, stream = _data_types(stream)
            with self._open(data_types) as store:
                return _import(store, stream, progress, dry_run=True)
        with tempfile.TemporaryDirectory(prefix="agola-import-") as directory:
            data_types, stream = _data_types(stream)
            with agola_core.open(directory, data_types=data_types, options=_QUIET) as store:
                return _import(store, stream, progress, dry_run=True)

    def replace(self, stream: IO[bytes], progress: Progress) -> ImportResult:
        """Replace the content of the store that is there."""
        data_types, stream = _data_types(stream)
        with self._open(data_types) as store:
            return _import(store, stream, progress)

    def create(self, stream: IO[bytes], progress: Progress) -> ImportResult:
        """Make a store of an export; when that fails, what was made in the directory is removed."""
        data_types, stream = _data_types(stream)
        with (
            _removed_on_error(self._directory),
            agola_core.open(
                self._directory,
                data_types=data_types,
                storage=self._storage,
                coordinator=self._coordinator,
                options=_QUIET,
            ) as store,
        ):
            if not moves.is_run_service(data_types):
                return _import(store, stream, progress)
            was_on = maintenance.status(store.coordinator).enabled
            if not was_on:
                maintenance.enable(store.coordinator)  # nobody begins to serve meanwhile
            try:
                return _import(store, stream, progress)
            finally:
                if not was_on:
                    maintenance.disable(store.coordinator)

    @contextmanager
    def _open(self, data_types: tuple[str, ...]) -> Iterator[DataManager]:
        """Open the store that is there, for an export with these types."""
        with agola_core.open(
            self._directory, storage=self._storage, coordinator=self._coordinator, options=_QUIET
        ) as store:
            stored = store.data_types
        both = moves.is_run_service(stored), moves.is_run_service(data_types)
        if both == (True, True):
            wanted = stored
        elif both == (False, False) and set(stored) & set(data_types):
            wanted = tuple(dict.fromkeys((*stored, *data_types)))
        else:
            raise BadRequestError(
                f"the export holds {', '.join(data_types)}, the store {', '.join(stored)}: they are of different "
                "applications; nothing was imported"
            )
        with agola_core.open(
            self._directory, data_types=wanted, storage=self._storage, coordinator=self._coordinator, options=_QUIET
        ) as store:
            yield store


def _import(store: DataManager, stream: IO[bytes], progress: Progress, *, dry_run: bool = False) -> ImportResult:
    if moves.is_run_service(store.data_types):
        return moves.import_(store, stream, dry_run=dry_run, progress=progress)
    return store.import_(stream, dry_run=dry_run, progress=progress)


def _data_types(stream: IO[bytes]) -> tuple[tuple[str, ...], IO[bytes]]:
    """Return the data types of an export, Agola's those of a run service, and the export."""
    named, stream = peek(stream)
    return named or DATA_TYPES, stream


def _ask(file: str, *, yes: bool) -> None:
    if file == "-" and not yes:
        raise click.UsageError(f"{_QUESTION}: say --yes")
    confirm(_QUESTION, yes=yes)


@contextmanager
def _removed_on_error(directory: Path | None) -> Iterator[None]:
    """Remove what a block made in a directory when it fails; what was there before stays."""
    made = directory is not None and not directory.exists()
    before = set(directory.iterdir()) if directory is not None and directory.exists() else set()
    try:
        yield
    except BaseException:
        if directory is not None and directory.exists():
            for path in set(directory.iterdir()) - before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if made:
                directory.rmdir()
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
