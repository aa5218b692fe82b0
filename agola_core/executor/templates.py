"""Key templates of caches: Go's `{{ ... }}` with Agola's functions."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from agola_core.errors import BadRequestError, NotFoundError

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_CALL = re.compile(r"""(\w+)(?:\s+(?:"((?:[^"\\]|\\.)*)"|`([^`]*)`))?""")


def expand_key(
    template: str,
    *,
    read: Callable[[str], Iterator[bytes]],
    environment: Mapping[str, str],
    arch: str,
    clock: Callable[[], float] = time.time,
) -> str:
    """Return a cache key with its template's actions replaced.

    Args:
        template: Such as `deps-{{ md5sum "lock" }}`.
        read: Yields the files of `md5sum` and `sha256sum`.
        environment: What `env` looks at.
        arch: This machine's architecture by its Go name.
        clock: Seconds since 1970.

    Raises:
        BadRequestError: An action is malformed, unknown, or names a file that cannot be read.

    Example:
        >>> expand_key("{{ os }}-{{ env `A` }}", read=lambda _: iter(()), environment={"A": "x"}, arch="amd64")
        'linux-x'
    """

    def digest(algorithm: str, name: str) -> str:
        found = hashlib.new(algorithm, usedforsecurity=False)
        try:
            for piece in read(name):
                found.update(piece)
        except NotFoundError as error:
            raise BadRequestError(f"cache key {template!r}: {error}") from error
        return found.hexdigest()

    now = clock()
    date = datetime.fromtimestamp(now, UTC)
    plain: dict[str, str] = {
        "os": "linux",
        "arch": arch,
        "unixtime": str(int(now * 1_000_000_000)),
        "year": f"{date.year}",
        "month": f"{date.month}",
        "day": f"{date.day}",
    }

    def replaced(match: re.Match[str]) -> str:
        call = _CALL.fullmatch(match[1])
        if call is None:
            raise BadRequestError(f"cache key {template!r}: cannot understand {match[0]!r}")
        name, argument = call[1], call[2] if call[2] is not None else call[3]
        if argument is None and name in plain:
            return plain[name]
        if argument is not None and name in {"md5sum", "sha256sum"}:
            return digest(name.removesuffix("sum"), argument)
        if argument is not None and name == "env":
            return environment.get(argument, "")
        raise BadRequestError(f"cache key {template!r}: unknown function or wrong argument in {match[0]!r}")

    return _ACTION.sub(replaced, template)
