"""Expands the templates of cache keys: Go's `{{ ... }}` with Agola's functions."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from agola_core.errors import BadRequestError, NotFoundError

MAX_TEMPLATE_CHARACTERS = 4096
_DIGEST_CHARACTERS = 16
_TRIMMED = " \t\r\n"

# Matched at a "{{", once: no two parts that repeat meet, so its time grows with the action alone.
_ACTION = re.compile(
    r"""\{\{(?:-\s)?\s*(\w+)(?:\s+(?:"((?:[^"\\]|\\.)*)"|`([^`]*)`))?\s*(?:(?<=\s)-)?\}\}""", re.DOTALL
)


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
        template: Such as `deps-{{ md5sum "lock" }}`, of at most `MAX_TEMPLATE_CHARACTERS`.
        read: Yields the files of `md5sum` and `sha256sum`.
        environment: What `env` looks at.
        arch: This machine's architecture by its Go name.
        clock: Seconds since 1970.

    Raises:
        BadRequestError: The template is too long, or an action is malformed, unknown, or names a file that cannot be
            read.

    Example:
        >>> expand_key("{{ os }}-{{ env `A` }}", read=lambda _: iter(()), environment={"A": "x"}, arch="amd64")
        'linux-x'
    """
    if len(template) > MAX_TEMPLATE_CHARACTERS:
        raise BadRequestError(f"a cache key of {len(template)} characters; at most {MAX_TEMPLATE_CHARACTERS}")

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
        name, argument = match[1], match[2] if match[2] is not None else match[3]
        if argument is None and name in plain:
            return plain[name]
        if argument is not None and name in {"md5sum", "sha256sum"}:
            return digest(name.removesuffix("sum"), argument)
        if argument is not None and name == "env":
            return environment.get(argument, "")
        raise BadRequestError(f"cache key {template!r}: unknown function or wrong argument in {match[0]!r}")

    parts, position = [], 0
    while (begin := template.find("{{", position)) >= 0:
        match = _ACTION.match(template, begin)
        if match is None:
            raise BadRequestError(f"cache key {template!r}: cannot understand {template[begin : begin + 40]!r}")
        text = template[position:begin]
        parts += [text.rstrip(_TRIMMED) if match[0].startswith("{{-") else text, replaced(match)]
        position = match.end()
        if match[0].endswith("-}}"):
            position += len(template) - position - len(template[position:].lstrip(_TRIMMED))
    return "".join([*parts, template[position:]])


def stored_key(key: str, room: int) -> str:
    """Return the form in which a key is stored: a `/` is written `%2F`, and a key that is too long ends with a digest.

    The beginning stays, so that `restore_cache` finds keys by their beginnings.

    Args:
        key: An expanded key, such as `deps-feature/login-42`.
        room: The most bytes.

    Raises:
        BadRequestError: It has a NUL.

    Example:
        >>> stored_key("deps-feature/login", 100)
        'deps-feature%2Flogin'
        >>> stored_key("x" * 100, 40)
        'xxxxxxxxxxxxxxxxxxxxxxx-09ecb6ebc8bcefc7'
    """
    if "\0" in key:
        raise BadRequestError(f"the cache key {key!r} has a character that keys cannot have")
    encoded = key.replace("/", "%2F").encode()
    if len(encoded) <= room:
        return encoded.decode()
    digest = hashlib.sha256(encoded).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{encoded[: room - len(digest) - 1].decode(errors='ignore')}-{digest}"
