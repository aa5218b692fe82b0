"""Tells the path of a directory from a URL, which people give in its place; a directory of its name would be made."""

from __future__ import annotations

import os
import re
from pathlib import Path

from agola_core.errors import BadRequestError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # one slash: a `Path` has made one of two
_NAMED_BY = {
    **dict.fromkeys(("s3", "posix", "posixflat"), "an object storage is named by storage= (--storage)"),
    **dict.fromkeys(("etcd", "sqlite"), "a coordinator is named by coordinator= (--coordinator)"),
    **dict.fromkeys(("http", "https"), "a running service is named by --url"),
}


def check_directory(path: str | os.PathLike[str], argument: str) -> Path:
    """Return a directory's path.

    Args:
        path: As it was given.
        argument: The name of what it was given as, for the message.

    Raises:
        BadRequestError: It is a URL, or can be no path; names the argument, and the right one.
    """
    reason = no_directory(path)
    if reason is not None:
        raise BadRequestError(f"{argument} {os.fspath(path)!r} {reason}")
    return Path(path)


def no_directory(path: str | os.PathLike[str]) -> str | None:
    """Return why a path can name no directory; None when it can."""
    text = os.fspath(path)
    if not text or "\0" in text:
        return "names no directory"
    found = _URL.match(text)
    if found is None:
        return None
    advice = _NAMED_BY.get(found[1].lower(), f"write a directory of that name as {os.path.abspath(text)!r}")  # noqa: PTH100
    return f"is a URL where a directory belongs: {advice}"
