"""Lets the commands of a user find the tokens of a service that the same user runs on this machine.

While it serves, a service is noted in a private directory of its user: where it listens, which process it is, and
where its data directory is. A note whose process is gone counts for nothing: whoever listens there now is a stranger,
and is shown no token.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.private import Access, make_directories
from agola_core.runtime.processes.liveness import is_running, start_time

logger = logging.getLogger(__name__)

_ANYWHERE = {"0.0.0.0", "::"}  # noqa: S104 - compared, not listened on


class Note(msgspec.Struct, frozen=True):
    """A service that runs.

    Attributes:
        host: The address that it listens on.
        port: The port.
        pid: Its process.
        start: When that was started (see `agola_core.runtime.processes.liveness`).
        tokens: The directory of its tokens.
    """

    host: str
    port: int
    pid: int
    start: int
    tokens: str


@contextmanager
def announced(url: str, tokens: Path) -> Iterator[None]:
    """Note a service of this process for the length of a block; where no note can be made, commands need a token file.

    Args:
        url: Where it listens.
        tokens: The directory of its tokens.
    """
    host, port = _place(url)
    note = Note(host, port, os.getpid(), start_time(os.getpid()) or 0, str(tokens.absolute()))
    path = None
    try:
        path = _directory() / f"{host}_{port}.json"
        make_directories(path.parent)
        path.unlink(missing_ok=True)
        with os.fdopen(Access.below(path.parent).create_file(path), "wb") as file:
            file.write(msgspec.json.encode(note))
    except (OSError, RuntimeError) as error:  # an account without a home
        logger.info("commands will not find the tokens by themselves: %s", error)
    try:
        yield
    finally:
        if path is not None:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def find_token(url: str, kind: str) -> tuple[str, str]:
    """Return a URL with the token that a service of this user takes there; "" for none that is known.

    Args:
        url: A service. `localhost` becomes the address that is listened on, for another user may have the other one.
        kind: The kind of token: `client`, `executor` or `admin`.
    """
    host, port = _place(url)
    for candidate in _candidates(host):
        note = _read(f"{candidate}_{port}.json")
        if note is not None and (note.host, note.port) == (candidate, port) and is_running(note.pid, note.start):
            with suppress(OSError):
                token = (Path(note.tokens) / kind).read_text().strip()
                return _at(url, "127.0.0.1" if candidate in _ANYWHERE else candidate), token
    return url, ""


def _read(name: str) -> Note | None:
    try:
        with (_directory() / name).open("rb") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return None
            return msgspec.json.decode(file.read(), type=Note)
    except (OSError, RuntimeError, *DECODE_ERRORS):
        return None


def _candidates(host: str) -> list[str]:
    """Return the addresses under which the service at a host may be recorded."""
    if host == "localhost":
        return ["127.0.0.1", "localhost", *_ANYWHERE]
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        return []
    return [host, *(_ANYWHERE if is_here else ())]


def _at(url: str, host: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname != "localhost":  # a certificate tells who it is
        return url
    return parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host).geturl()


def _place(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "", 0


def _directory() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "agola-core" / "services"
