"""Reads request bodies within limits of size and time."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import anyio.from_thread
from starlette.datastructures import Headers
from starlette.types import Message, Receive

from agola_http.errors import RefusedError
from agola_http.limits import Limits

_GONE = "the client went away before the end of the body"


async def read_body(headers: Headers, receive: Receive, limits: Limits) -> bytes:
    """Return a whole body.

    Args:
        headers: The request's.
        receive: Brings the pieces.
        limits: Its size and the time it may take.

    Raises:
        RefusedError: It is too large, too slow, or cut short.
    """
    _check_length(headers, limits.body_bytes)
    body = bytearray()
    more = True
    try:
        with anyio.fail_after(limits.body_seconds):
            while more:
                piece, more = _take(await receive())
                body += piece
                _check_size(len(body), limits.body_bytes)
    except TimeoutError as error:
        raise RefusedError(408, f"the body took longer than {limits.body_seconds:g} s") from error
    return bytes(body)


def upload_pieces(headers: Headers, receive: Receive, most: int | None, stall: float) -> Iterator[bytes]:
    """Yield the pieces of a body to a worker thread; the next one is read when it is asked for.

    Args:
        headers: The request's.
        receive: Brings the pieces.
        most: The largest size in bytes; None for any.
        stall: The most seconds without a piece.

    Raises:
        RefusedError: It is too large, too slow, or cut short.
    """
    _check_length(headers, most)
    size, more = 0, True
    while more:
        piece, more = _take(anyio.from_thread.run(_receive_in_time, receive, stall))
        size += len(piece)
        _check_size(size, most)
        if piece:
            yield piece


async def _receive_in_time(receive: Receive, seconds: float) -> Message:
    try:
        with anyio.fail_after(seconds):
            return await receive()
    except TimeoutError as error:
        raise RefusedError(408, f"the body brought nothing for {seconds:g} s") from error


def _take(message: Message) -> tuple[bytes, bool]:
    if message["type"] == "http.disconnect":
        raise RefusedError(400, _GONE)
    return message.get("body", b""), message.get("more_body", False)


def _check_length(headers: Headers, limit: int | None) -> None:
    announced = headers.get("content-length", "0")
    if announced.isdigit():
        _check_size(int(announced), limit)


def _check_size(size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise RefusedError(413, f"the body is larger than {limit} bytes")
