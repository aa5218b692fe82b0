"""Masks secrets in logs: each of their bytes is replaced by a star, so that offsets stay the same."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator

from agola_core.runservice.model.types import MIN_HIDDEN_CHARACTERS

_STAR = b"*"
_MOST_BYTES = 256


def patterns_of(secrets: Iterable[str]) -> tuple[bytes, ...]:
    """Return the patterns that hide secrets: each value, its lines, and its base64 within other text.

    Args:
        secrets: The values; those shorter than `MIN_HIDDEN_CHARACTERS` are not hidden.
    """
    found: set[bytes] = set()
    for secret in secrets:
        if len(secret) < MIN_HIDDEN_CHARACTERS:
            continue
        data = secret.encode(errors="surrogateescape")
        lines = [line.strip() for line in data.splitlines()]
        found.update(part for line in (data, *lines) for part in _parts(line))
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = (_encoded(data, encode(b"\0" * shift + data), shift) for shift in range(3))
            found.update(part for text in encoded for part in _parts(text))
    return tuple(sorted(found - {b""}, key=len, reverse=True))


def _encoded(data: bytes, encoded: bytes, shift: int) -> bytes:
    """Return the part of a base64 text that does not depend on what precedes and follows the data."""
    return encoded[-(-shift * 8 // 6) : (shift + len(data)) * 8 // 6]


def _parts(text: bytes) -> Iterator[bytes]:
    """Yield a text in pieces, none too long or too short, so that long secrets do not take more time."""
    for start in range(0, len(text), _MOST_BYTES):
        piece = text[max(0, min(start, len(text) - MIN_HIDDEN_CHARACTERS)) :][:_MOST_BYTES]
        if len(piece) >= MIN_HIDDEN_CHARACTERS:
            yield piece


def masked(
    pieces: Iterable[bytes], patterns: tuple[bytes, ...], skip: int = 0, *, goes_on: bool = False
) -> Iterator[bytes]:
    """Yield a log with patterns replaced by stars; a possible beginning of one is held until the rest arrives.

    Args:
        pieces: The log; an empty piece means that there is nothing new, and is passed on.
        patterns: The patterns to hide.
        skip: How many bytes to drop at the beginning, which only help to recognise a pattern.
        goes_on: Whether the log may continue: a possible beginning of a secret at the end is then hidden.
    """
    held = b""  # as it is in the log
    stars = bytearray()  # the same, with what was recognised hidden
    for piece in pieces:
        data, shown = held + piece, stars + piece
        for pattern in patterns:
            place = data.find(pattern)
            while place >= 0:
                shown[place : place + len(pattern)] = _STAR * len(pattern)
                place = data.find(pattern, place + 1)
        safe = len(data) - _begun(data, patterns)
        held, stars = data[safe:], shown[safe:]
        ready = bytes(shown[:safe])
        ready, skip = ready[skip:], max(0, skip - len(ready))
        if ready or not piece:
            yield ready
    rest = bytes(stars)[skip:]
    if rest:
        yield _STAR * len(rest) if goes_on else rest


def without_begun(data: bytes, patterns: tuple[bytes, ...]) -> int:
    """Return how many of the first bytes are left when none of the last ones may be the beginning of a pattern."""
    end = len(data)
    while begun := _begun(data[max(0, end - _MOST_BYTES) : end], patterns):  # what is left may end in another one
        end -= begun
    return end


def _begun(data: bytes, patterns: tuple[bytes, ...]) -> int:
    """Return how many of the last bytes may be the beginning of a pattern."""
    longest = 0
    for pattern in patterns:
        tail = data[-(len(pattern) - 1) :]
        place = tail.find(pattern[:1])
        while 0 <= place < len(tail) - longest:
            if pattern.startswith(tail[place:]):
                longest = len(tail) - place
                break
            place = tail.find(pattern[:1], place + 1)
    return longest
