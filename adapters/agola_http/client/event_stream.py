"""Parses a stream of server-sent events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Event(NamedTuple):
    """One event.

    Attributes:
        name: Its type; `message` when it says none.
        id: The id with which the stream is resumed.
        data: What it carries.
    """

    name: str
    id: str
    data: bytes


def read_events(pieces: Iterable[bytes]) -> Iterator[Event]:
    """Yield the events of a stream; skips comments, and an event that is cut off.

    Args:
        pieces: The stream, in pieces of any size.
    """
    name, event_id, data = "", "", list[bytes]()
    for line in _lines(pieces):
        if line:
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value.decode(errors="replace")
            elif field == b"id":
                event_id = value.decode(errors="replace")
        else:
            if data:
                yield Event(name or "message", event_id, b"\n".join(data))
            name, data = "", []


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        *lines, held = (held + piece).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r")
