"""Reads access tokens from files and the environment, never from the command line, which every user can see."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from agola_core.errors import BadRequestError
from agola_http.access import Tokens

KINDS = ("client", "executor", "admin")


def read_tokens(files: Mapping[str, Path | None], environment: Mapping[str, str] = os.environ) -> Tokens:
    """Return the tokens of each kind: those of its file, one a line, and that of `AGOLA_<KIND>_TOKEN`.

    Empty lines and lines that begin with `#` are passed over. A line of the executors' may be `ID=TOKEN`.

    Args:
        files: For each kind its file.
        environment: Where the variables are.

    Raises:
        BadRequestError: A file cannot be read, has no token, or one that is not usable; the token is not shown.
    """
    found: dict[str, list[str]] = {}
    for kind in KINDS:
        path = files.get(kind)
        tokens = _of_file(path, kind) if path is not None else []
        given = environment.get(f"AGOLA_{kind.upper()}_TOKEN", "")
        found[kind] = [*tokens, *([given] if given else [])]
    return Tokens(**found)


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
