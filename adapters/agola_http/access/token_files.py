"""Reads access tokens from files and the environment, never from the command line, which every user can see.

A service that is given none makes its own, in files of its data directory that its user alone may read.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from agola_core.errors import BadRequestError, disk_error
from agola_core.private import Access, make_directories
from agola_http.access.control import Tokens

KINDS = ("client", "executor", "admin")
DIRECTORY = "tokens"
"""Where in a data directory the tokens are that the service made, a file for each kind."""


def read_tokens(files: Mapping[str, Path | None], environment: Mapping[str, str] = os.environ) -> Tokens:
    """Return the tokens of each kind: from its file, one a line, and from the variable `AGOLA_<KIND>_TOKEN`.

    Empty lines and lines that begin with `#` are passed over. A line of the executors' may be `ID=TOKEN`.

    Args:
        files: The file of each kind.
        environment: The environment variables.

    Raises:
        BadRequestError: A file cannot be read, has no token, or an unusable one; the message does not contain it.
    """
    found: dict[str, list[str]] = {}
    for kind in KINDS:
        path = files.get(kind)
        tokens = _of_file(path, kind) if path is not None else []
        given = environment.get(f"AGOLA_{kind.upper()}_TOKEN", "")
        found[kind] = [*tokens, *([given] if given else [])]
    return Tokens(**found)


def with_own(
    files: Mapping[str, Path | None], data_dir: Path, environment: Mapping[str, str] = os.environ
) -> dict[str, Path | None]:
    """Return the files, with one in the data directory for each kind without a token; the first start creates it.

    Args:
        files: The given file of each kind.
        data_dir: The data directory of the service.
        environment: The environment variables.

    Raises:
        UnavailableError: A file cannot be created.
    """
    directory = data_dir.absolute() / DIRECTORY
    found = dict(files)
    for kind in KINDS:
        if found.get(kind) is None and not environment.get(f"AGOLA_{kind.upper()}_TOKEN"):
            found[kind] = directory / kind
            try:
                _make(directory / kind)
            except OSError as error:
                raise disk_error(error, f"the {kind} token cannot be made in {str(directory)!r}") from error
    return found


def _make(path: Path) -> None:
    """Create a token file atomically, unless it exists."""
    if path.exists():
        return
    make_directories(path.parent)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        unfinished.unlink()
    descriptor = Access.below(path.parent).create_file(unfinished)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):  # another process was quicker
            os.link(unfinished, path)
    finally:
        unfinished.unlink()


def _of_file(path: Path, kind: str) -> list[str]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"the {kind} tokens cannot be read from {str(path)!r}: {_reason(error)}") from error
    tokens = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not tokens:
        raise BadRequestError(f"{str(path)!r} has no {kind} token")
    return tokens


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or "not readable") if isinstance(error, OSError) else "it is no text"
