"""`agola-core runs artifacts`: lists or unpacks the files that the tasks of a run saved to the workspace."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from agola_cli.connect.run_names import resolve_run
from agola_cli.connect.target import Service, Target, target_options
from agola_cli.options.directories import DirectoryType
from agola_cli.output.records import echo_foreign, printable
from agola_cli.runs.logs import chosen_tasks
from agola_core.errors import BadRequestError, NotFoundError
from agola_core.executor.archives.unpack import unpack
from agola_core.runservice.model.requests import RunBundle
from agola_core.tar_stream import read_members

_MAX_NAME_BYTES = 200


@click.command("artifacts")
@click.argument("run_id", metavar="RUN")
@click.option(
    "--task", "task_names", multiple=True, metavar="NAME", help="Only of this task, or of this matrix; repeatable."
)
@click.option("-o", "--output", type=DirectoryType(), help="Unpack the files here, in a directory for each task.")
@target_options
def artifacts_command(run_id: str, task_names: tuple[str, ...], output: Path | None, target: Target) -> None:
    """List the files that the tasks of a run saved with `save_to_workspace`, or unpack them.

    RUN is an id, a number, or `last`.

    \b
    agola-core runs artifacts last
    agola-core runs artifacts last --task build -o dist
    agola-core runs artifacts 12 -o files --url http://127.0.0.1:4000
    """
    if output is not None:
        check_output(output, "-o")
    with target.open_service() as connection:
        service = connection.service
        bundle = service.get_run(resolve_run(service, run_id))
        if output is not None:
            unpack_artifacts(service, bundle, task_names, output)
            return
        for name, pieces in _archives(service, bundle, task_names):
            for member in read_members(pieces):
                if member.info.isreg():
                    for _ in member.pieces():
                        pass
                if not member.info.isdir():
                    echo_foreign(f"{name}: {'/'.join(member.parts)}")


def check_output(directory: Path, option: str) -> None:
    """Check that files can be unpacked in a directory, before a long run finds out; it is made when missing.

    Raises:
        BadRequestError: They cannot.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise BadRequestError(f"{option} {str(directory)!r} cannot be written to: {error.strerror}") from error


def unpack_artifacts(service: Service, bundle: RunBundle, task_names: tuple[str, ...], directory: Path) -> None:
    """Unpack the files that tasks saved, those of each task into a directory of its name.

    Args:
        service: Has the run.
        bundle: The run.
        task_names: Only of these tasks; none for all.
        directory: The directory to create them in; existing files are replaced.

    Raises:
        NotFoundError: There is no such task.
        BadRequestError: Something is in the way of a task's directory.
    """
    for name, pieces in _archives(service, bundle, task_names):
        target = directory / _file_name(name)
        try:
            count = unpack(pieces, target, overwrite=True)
        except (FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
            raise BadRequestError(f"{name}: nothing can be unpacked in {str(target)!r}: {error.strerror}") from error
        click.echo(printable(f"{name}: {count} entries in {target}"), err=True)


def _archives(
    service: Service, bundle: RunBundle, task_names: tuple[str, ...]
) -> Iterator[tuple[str, Iterator[bytes]]]:
    for item in chosen_tasks(bundle, task_names):
        for step in bundle.run.tasks[item.id].workspace_archives:
            try:
                pieces = service.open_archive(bundle.run.id, item.id, step)
                first = next(pieces, b"")
            except NotFoundError as error:  # the step did not come to it
                click.echo(f"{printable(item.name)}, step {step}: {error}", err=True)
                continue
            yield item.name, _chained(first, pieces)


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _file_name(task: str) -> str:
    """Return the name of a task's directory."""
    name = task.replace("/", "_").replace("\0", "_")
    data = name.encode(errors="surrogateescape")
    if len(data) > _MAX_NAME_BYTES:  # one of a matrix of many values
        name = f"{data[:_MAX_NAME_BYTES].decode(errors='ignore')}-{hashlib.blake2b(data, digest_size=8).hexdigest()}"
    return "_" if name in {"", ".", ".."} else name
