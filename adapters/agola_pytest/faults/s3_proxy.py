"""A proxy in front of a real S3 server that records and delays requests, or makes them fail as servers do.

::

    with start_s3(directory) as s3, S3Proxy(s3, delay=0.02) as proxy:
        storage = agola_core.open_storage(proxy.url("prefix"))
        proxy.fail(Failure.RESET_AFTER, lambda request: request.method == "PUT", times=1)
        storage.write("key", b"...")
        proxy.requests
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import unquote, urlsplit

from agola_pytest.servers.s3 import S3Server

_HEAD_LIMIT = 1 << 20


class Failure(enum.Enum):
    """Ways in which a request can fail; a status is followed by its S3 error code."""

    RESET_BEFORE = "the connection breaks before the server has the request"
    RESET_AFTER = "the server did it, and the connection breaks before the answer"
    AWAY = "the connection breaks before the server has the request, and no other one is taken until `back`"
    TRUNCATE = "the answer ends in the middle of its body"
    STALL = "no answer ever comes"
    SERVER_ERROR = "500 InternalError"
    UNAVAILABLE = "503 SlowDown"
    THROTTLED = "429 TooManyRequests"
    DENIED = "403 AccessDenied"
    SKEWED = "403 RequestTimeTooSkewed"
    ELSEWHERE = "301 PermanentRedirect"
    FULL = "507 InsufficientStorage"
    PRECONDITION = "412 PreconditionFailed"
    CONFLICT = "409 ConditionalRequestConflict"
    DIRECTORY = "409 ExistingObjectIsDirectory"
    INCOMPLETE = "400 RequestTimeout"
    NO_UPLOAD = "404 NoSuchUpload"
    LATE_ERROR = "200 InternalError"
    GATEWAY = "504 GatewayTimeout"


class S3Request(NamedTuple):
    """A request as seen by the proxy.

    Attributes:
        method: Such as GET.
        path: The path, decoded: the bucket and the key.
        query: The undecoded query string.
        ranged: Whether it requests a range.
    """

    method: str
    path: str
    query: str
    ranged: bool


class _Rule(NamedTuple):
    failure: Failure
    matches: Callable[[S3Request], bool]
    left: list[int]
    applied: bool


class S3Proxy(S3Server):
    """A proxy on a free loopback port; a context manager.

    Args:
        server: The real server.
        delay: Delay of every request, in seconds.

    Attributes:
        requests: All requests so far, in order of arrival.
        delay: Delay of every request, in seconds; may be changed at any time.
        gate: An event; while it is not set, requests are held.
        flip: Whether one bit of every object read is flipped.
    """

    def __init__(self, server: S3Server, delay: float = 0.0) -> None:
        super().__init__("", bucket=server.bucket, place=server.place, credentials=server.credentials)
        self.requests: list[S3Request] = []
        self.delay = delay
        self.flip = False
        self.gate: threading.Event | None = None
        self._target = server.address
        self._tls = urlsplit(server.endpoint).scheme == "https" or None
        self._rules: list[_Rule] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="s3-proxy", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()

    def fail(
        self,
        failure: Failure,
        matches: Callable[[S3Request], bool] = lambda _: True,
        times: int = 1 << 30,
        *,
        applied: bool = False,
    ) -> None:
        """Make the next matching requests fail.

        Args:
            failure: How they fail.
            matches: Which requests fail.
            times: How many fail.
            applied: Whether the server processes the request all the same, for failures that would prevent that.
        """
        self._rules.append(_Rule(failure, matches, [times], applied))

    def heal(self) -> None:
        """Forward every request again."""
        self._rules.clear()

    def away(self) -> None:
        """Reset all connections and refuse new ones until `back`, like a server that is being restarted."""
        asyncio.run_coroutine_threadsafe(self._go_away(), self._loop).result()

    def back(self) -> None:
        """Accept connections again."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def __enter__(self) -> Self:
        """Start listening."""
        self._thread.start()
        self._bind(0)
        self.back()
        self.endpoint = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop all connections."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _bind(self, port: int) -> None:
        """Bind a port: until the socket listens, connections to it are refused."""
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=self._socket, limit=_HEAD_LIMIT)

    async def _go_away(self) -> None:
        port = self._socket.getsockname()[1]
        await self._stop()
        self._bind(port)

    async def _stop(self) -> None:
        self._server.close()
        self._socket.close()
        others = self._connections - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            upstream = await asyncio.open_connection(*self._target, limit=_HEAD_LIMIT, ssl=self._tls)
            while await self._pass_on(reader, writer, *upstream):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass  # either side is gone
        finally:
            for one in (writer, *(upstream or ())[1:]):
                if isinstance(one, asyncio.StreamWriter) and not one.transport.is_closing():
                    one.transport.abort()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> bool:
        """Forward one request and its answer; return whether the connection can be reused."""
        head = await reader.readuntil(b"\r\n\r\n")
        fields = _fields(head)
        if fields.pop("expect", "") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:"))
        body = await _body(reader, fields)
        method, target = head.split(b" ", 2)[:2]
        path, _, query = target.decode().partition("?")
        request = S3Request(method.decode(), unquote(path), query, "range" in fields)
        self.requests.append(request)
        rule = self._rule(request)
        failure = rule.failure if rule is not None else None
        if self.delay:
            await asyncio.sleep(self.delay)
        while self.gate is not None and not self.gate.is_set():
            await asyncio.sleep(0.005)
        if rule is not None and rule.applied:
            server_writer.write(head + body)
            applied = await server_reader.readuntil(b"\r\n\r\n")
            await _body(server_reader, _fields(applied))
        if failure is Failure.AWAY:
            await self._go_away()
        if failure in {Failure.RESET_BEFORE, Failure.AWAY}:
            return False
        if failure is Failure.STALL:
            await asyncio.sleep(3600)
        if failure is not None and failure.value[0].isdigit():
            writer.write(_error_answer(failure, request.method))
            await writer.drain()
            return True
        server_writer.write(head + body)
        answer_head = await server_reader.readuntil(b"\r\n\r\n")
        answer_fields = _fields(answer_head)
        bodiless = request.method == "HEAD" or answer_head.split(b" ", 2)[1] in {b"204", b"304"}
        answer = b"" if bodiless else await _body(server_reader, answer_fields)
        if failure is Failure.RESET_AFTER:
            return False
        if failure is Failure.TRUNCATE and answer:
            writer.write(answer_head + answer[: len(answer) // 2])
            await _end(writer)
            return False
        if self.flip and answer and request.method == "GET" and not query.startswith(("list-type", "uploads")):
            answer = bytes([answer[0] ^ 1]) + answer[1:]
        writer.write(answer_head + answer)
        if answer_fields.get("connection", "").lower() == "close":
            await _end(writer)
            return False
        await writer.drain()
        return True

    def _rule(self, request: S3Request) -> _Rule | None:
        for rule in self._rules:
            if rule.left[0] > 0 and rule.matches(request):
                rule.left[0] -= 1
                return rule
        return None


async def _end(writer: asyncio.StreamWriter) -> None:
    """Close a connection once everything was sent: `drain` leaves up to 64 KiB, which an abort would drop."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _fields(head: bytes) -> dict[str, str]:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:] if line)
    return {name.decode().lower(): value.decode().strip() for name, _, value in lines}


async def _body(reader: asyncio.StreamReader, fields: dict[str, str]) -> bytes:
    """Return the raw body of a message, chunked or not."""
    if fields.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(fields.get("content-length", 0)))
    pieces = []
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        pieces += [line, await reader.readexactly(size + 2)]
        if not size:
            return b"".join(pieces)


def _error_answer(failure: Failure, method: str) -> bytes:
    status, code = failure.value.split()
    body = b"" if method == "HEAD" else f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
