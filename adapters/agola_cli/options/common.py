"""Options that several commands share."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

import agola_core
from agola_core.datamanager import DataManager, Options
from agola_core.embedded import is_read_only
from agola_core.errors import BadRequestError
from agola_core.locations import no_directory
from agola_core.objectstorage.factory import check_configured

F = TypeVar("F", bound=Callable[..., Any])


def default_data_dir(tree: Path) -> Path:
    """Return where the runs of a directory are kept, when nothing else is said.

    Args:
        tree: A directory, or a file in it; in a git checkout its top stands for all of it.
    """
    directory = tree if tree.is_dir() else tree.parent
    try:
        command = ["git", "-C", str(directory), "rev-parse", "--show-toplevel"]
        top = subprocess.run(command, capture_output=True, check=False, text=True).stdout.strip()
    except FileNotFoundError:  # a machine without git
        top = ""
    root = Path(top) if top else directory.resolve()
    base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
    return base / "agola-core" / f"{root.name or 'root'}-{digest}"


class DirectoryType(click.Path):
    """A directory, which is made when missing; a URL in its place is told what it should have been given as."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        reason = no_directory(value)
        if reason is not None:
            self.fail(f"{os.fspath(value)!r} {reason}", param, ctx)
        return super().convert(value, param, ctx)


data_dir_option = click.option(
    "--data-dir",
    type=DirectoryType(),
    envvar="AGOLA_DATA_DIR",
    show_envvar=True,
    help="Where runs, logs and the store are kept. By default a directory of your home for each checkout.",
)

storage_option = click.option(
    "--storage",
    metavar="URL",
    callback=lambda _context, _option, url: url and check_configured(url),
    envvar="AGOLA_STORAGE",
    show_envvar=True,
    help="The object storage, in the place of the data directory's: posix:///DIR or s3://BUCKET/PREFIX.",
)

coordinator_option = click.option(
    "--coordinator",
    metavar="URL",
    envvar="AGOLA_COORDINATOR",
    show_envvar=True,
    help="The coordinator, in the place of the data directory's: etcd://HOST:2379,HOST:2379/PREFIX.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")

url_option = click.option(
    "--url",
    metavar="URL",
    envvar="AGOLA_URL",
    show_envvar=True,
    help="A running service, such as http://127.0.0.1:4000, in the place of a data directory.",
)

token_file_option = click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="AGOLA_TOKEN_FILE",
    show_envvar=True,
    help="Holds the token that the service asks for; AGOLA_TOKEN may hold the token itself.",
)

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def store_options(function: F) -> F:
    """Add the options that name a store."""
    for option in (coordinator_option, storage_option, data_dir_option):
        function = option(function)
    return function


def existing_data_dir(data_dir: Path | None) -> Path:
    """Return the data directory that a reading command uses.

    Raises:
        click.UsageError: There is none yet.
    """
    chosen = data_dir or default_data_dir(Path.cwd())
    if not chosen.is_dir():
        raise click.UsageError(f"no data directory {chosen}: nothing has run yet, or name another with --data-dir")
    return chosen


def store_data_dir(data_dir: Path | None, storage: str | None, coordinator: str | None) -> Path | None:
    """Return the data directory of a store that is there; None when both of its halves are named by URLs alone.

    Raises:
        click.UsageError: There is no store, or only one half is named.
    """
    if data_dir is None and storage and coordinator:
        return None
    if data_dir is None and (storage or coordinator) and not default_data_dir(Path.cwd()).is_dir():
        given, missing = ("--storage", "--coordinator") if storage else ("--coordinator", "--storage")
        raise click.UsageError(f"{given} is half of a store: name the other by {missing} or --data-dir")
    return used_data_dir(data_dir, storage)


def recovered_data_dir(data_dir: Path | None, storage: str | None, coordinator: str | None) -> Path | None:
    """Return the data directory of a store that is to be recovered: on a new machine its storage alone is there.

    Raises:
        click.UsageError: There is no store.
    """
    if data_dir is not None and storage is not None:
        return data_dir
    return store_data_dir(data_dir, storage, coordinator)


def used_data_dir(data_dir: Path | None, storage: str | None) -> Path:
    """Return the data directory of a store that is there, its storage there or elsewhere.

    Raises:
        click.UsageError: There is no store.
    """
    chosen = existing_data_dir(data_dir)
    from agola_core.embedded import STORAGE_DIRECTORY  # noqa: PLC0415 - a client needs no store

    if storage is None and not (chosen / STORAGE_DIRECTORY).is_dir():
        raise click.UsageError(f"no store in {chosen}: nothing has run there, or name another with --data-dir")
    return chosen


def chosen_url(url: str | None) -> str | None:
    """Return the service that the running command talks to; None when the command line names a store instead.

    Raises:
        click.UsageError: The command line names both.
    """
    source = click.get_current_context().get_parameter_source
    typed = click.core.ParameterSource.COMMANDLINE
    named = [name for name in ("data_dir", "storage", "coordinator") if source(name) is typed]
    if not url or not named:
        return url
    if source("url") is typed:
        raise click.UsageError(f"name it by --url or by --{named[0].replace('_', '-')}, not by both")
    return None


def read_token(token_file: Path | None) -> str:
    """Return the token of a service; "" for none.

    Raises:
        BadRequestError: The file cannot be read, or is empty.
    """
    if token_file is None:
        return os.environ.get("AGOLA_TOKEN", "")
    try:
        token = token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"the token file {str(token_file)!r} cannot be read: {error}") from error
    if not token:
        raise BadRequestError(f"the token file {str(token_file)!r} is empty")
    return token


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be taken back.

    Args:
        question: What is about to happen.
        yes: Whether the person has said yes already.

    Raises:
        click.UsageError: Nobody is there to be asked.
        click.Abort: The answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question}: say --yes")
    click.confirm(f"{question}; go on?", abort=True)


def secret_options(function: F) -> F:
    """Add the options that give secrets; the command takes `secrets`, names and values."""

    def with_secrets(**arguments: Any) -> Any:
        given = dict(given_variable(item) for item in arguments.pop("secret"))
        for item in arguments.pop("secret_file"):
            name, file = name_and_value(item)
            given[name] = _read_secret(name, Path(file))
        for name, value in given.items():
            if not value:
                raise BadRequestError(f"--secret {name}: it has no value")
        return function(secrets=given, **arguments)

    wrapped: Any = with_secrets
    wrapped.__doc__, wrapped.__name__ = function.__doc__, function.__name__
    wrapped.__click_params__ = getattr(function, "__click_params__", [])
    for option in (
        click.option("--secret-file", multiple=True, metavar="NAME=FILE", help="Likewise, what a file holds."),
        click.option(
            "--secret", multiple=True, metavar="NAME[=VALUE]", help="Give a variable whose value is shown nowhere."
        ),
    ):
        wrapped = option(wrapped)
    decorated: F = wrapped
    return decorated


def _read_secret(name: str, file: Path) -> str:
    try:
        return file.read_text().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"--secret-file {name}={file}: {error}") from error


def name_and_value(text: str) -> tuple[str, str]:
    """Return the parts of NAME=VALUE.

    Raises:
        BadRequestError: It is not that.
    """
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise BadRequestError(f"expected NAME=VALUE, not {text!r}")
    return name, value


def given_variable(text: str) -> tuple[str, str]:
    """Return the name and the value that NAME=VALUE says, or that NAME has in this environment.

    Raises:
        BadRequestError: The name is empty.
    """
    name, separator, value = text.partition("=")
    if not name:
        raise BadRequestError("expected NAME or NAME=VALUE: there is no name")  # the value may be a secret
    return name, value if separator else os.environ.get(name, "")


def open_to_read(directory: Path | None, storage: str | None, coordinator: str | None) -> DataManager:
    """Open a store for a command that only reads: also one that cannot be written to."""
    read_only = is_read_only(directory, storage=storage, coordinator=coordinator)
    return agola_core.open(
        directory, storage=storage, coordinator=coordinator, options=Options(background=False), read_only=read_only
    )
