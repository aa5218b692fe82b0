"""Reads request bodies within limits of size and time."""

from __future__ import annotations

import time
from collections.abc import Iterator

import anyio
import anyio.from_thread
from starlette.datastructures import Headers
from starlette.types import Message, Receive

from agola_core.encoding.numerals import whole_number
from agola_http.protocol.errors import RefusedError
from agola_http.server.connections.limits import Limits

_GONE = "the client went away before the end of the body"


async def read_body(headers: Headers, receive: Receive, most: int, seconds: float) -> bytes:
    """Return a whole body.

    Args:
        headers: The headers of the request.
        receive: Receives the pieces.
        most: The largest size, in bytes.
        seconds: Seconds that it may take in total.

    Raises:
        RefusedError: It is too large, too slow, or cut short.
    """
    _check_length(headers, most)
    body = bytearray()
    more = True
    try:
        with anyio.fail_after(seconds):
            while more:
                piece, more = _take(await receive())
                body += piece
                _check_size(len(body), most)
    except TimeoutError as error:
        raise RefusedError(408, f"the body took longer than {seconds:g} s") from error
    return bytes(body)


def upload_pieces(headers: Headers, receive: Receive, most: int | None, limits: Limits) -> Iterator[bytes]:
    """Yield the pieces of a body to a worker thread; each is read on request.

    Args:
        headers: The headers of the request.
        receive: Receives the pieces.
        most: The largest size, in bytes; None for no limit.
        limits: The most seconds without a piece, and the lowest rate; only the client's time counts.

    Raises:
        RefusedError: It is empty, too large, too slow, or cut short.
    """
    _check_length(headers, most)
    size, waited, more = 0, 0.0, True
    while more:
        began = time.monotonic()
        piece, more = _take(anyio.from_thread.run(_receive_in_time, receive, limits.stall_seconds))
        waited += time.monotonic() - began
        size += len(piece)
        if more and size < limits.upload_rate * (waited - limits.stall_seconds):
            raise RefusedError(408, f"the body brought {size} bytes in {waited:.0f} s")
        _check_size(size, most)
        if piece:
            yield piece
    if not size:
        raise RefusedError(400, "the body is empty")


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
    size = whole_number(announced)
    if size is None:
        raise RefusedError(400, f"Content-Length must be a number, not {announced[:40]!r}")
    _check_size(size, limit)


def _check_size(size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise RefusedError(413, f"the body is larger than {limit} bytes")
