"""Sends streams: pulls a piece when the client has taken the one before, so a slow reader holds no memory.

A piece is pulled in a worker thread and handed to the connection, which takes it as its buffer allows. A stream
that fails before its first piece is answered as an error. One that fails later breaks the connection, so that no
client takes the part for the whole. A reader that takes nothing for too long is cut off.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import anyio
import anyio.to_thread
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agola_core.errors import DeadlineError
from agola_core.runtime.context import Context
from agola_core.runtime.failures import log_failure
from agola_http.access.principals import Principal
from agola_http.outbound.waiting import waiting_for
from agola_http.protocol.errors import RefusedError
from agola_http.server.connections.limits import Limits

logger = logging.getLogger(__name__)

ABORT = "agola_http.abort"
"""The key in a request's state of the function that breaks its connection at once."""

HAS_LEFT = "agola_http.has_left"
"""The key in a request's state of the function that says whether its client has closed the connection."""

_LOOK_SECONDS = 0.25


class StreamedResponse(Response):
    """A response whose body is an iterator, read as fast as the client reads the response.

    The head is sent with the first piece, so that an earlier failure still becomes an error response.

    Args:
        pieces: The body; an empty piece means "nothing yet".
        headers: Further headers.
    """

    def __init__(self, pieces: Iterator[bytes], headers: Mapping[str, str] | None = None) -> None:
        self.pieces = pieces
        self.status_code = 200
        self.background = None
        self.init_headers(headers or {})


class Streams:
    """The streams and uploads of a server.

    Args:
        limits: The most streams, and the seconds that a reader may read nothing.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._limiter: anyio.CapacityLimiter | None = None
        self._workers: anyio.CapacityLimiter | None = None
        self._lock = threading.Lock()
        self._open: Counter[Principal] = Counter()
        self._uploads: set[Context] = set()

    @property
    def limiter(self) -> anyio.CapacityLimiter:
        """The threads of streams; created inside the event loop."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self._limits.streams)
        return self._limiter

    @property
    def workers(self) -> anyio.CapacityLimiter:
        """The threads of everything else; created inside the event loop."""
        if self._workers is None:
            self._workers = anyio.CapacityLimiter(self._limits.workers)
        return self._workers

    @property
    def open(self) -> int:
        """The number of open streams."""
        return self._open.total()

    @contextlib.contextmanager
    def place(self, kind: Principal) -> Iterator[None]:
        """Take one of the limited places for streams.

        Args:
            kind: The kind of caller.

        Raises:
            RefusedError: All places of this kind of caller are taken.
        """
        self._take_place(kind)
        try:
            yield
        finally:
            self._give_place(kind)

    async def send(self, answer: StreamedResponse, kind: Principal, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a streamed response.

        Raises:
            RefusedError: There are too many streams of this kind of caller.
            Exception: The iterator's error, if it raised one before the head was sent.
        """
        self._take_place(kind)
        source = _Source(answer.pieces, self.limiter, partial(self._give_place, kind))
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_cancel_when_gone, receive, group.cancel_scope.cancel)
                try:
                    await self._send(answer, source, scope, send)
                except Exception as error:  # noqa: BLE001 - raised below, outside the group that would wrap it
                    failure = error
                group.cancel_scope.cancel()
        finally:
            await source.close()
        if failure is not None:
            raise failure

    async def take(self, work: Callable[[], Response], context: Context, scope: Scope) -> Response:
        """Return the response of a handler that may take long: of an upload, or one that calls an executor.

        Args:
            work: The handler's call, made in a thread of streams.
            context: The context of the request, cancelled when the client leaves.
            scope: The ASGI scope of the request.
        """
        failure: Exception | None = None
        answer = Response()

        def waited() -> Response:
            with waiting_for(context):
                return work()

        async def watch() -> None:
            # Not by the next message: it waits behind a body that the handler is still at work on.
            has_left = scope.get("state", {}).get(HAS_LEFT, lambda: False)
            while not has_left():
                await anyio.sleep(_LOOK_SECONDS)
            context.cancel()

        with self._lock:
            self._uploads.add(context)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(watch)
                try:
                    answer = await anyio.to_thread.run_sync(waited, limiter=self.limiter)
                except Exception as error:  # noqa: BLE001 - raised below, outside the group that would wrap it
                    failure = error
                group.cancel_scope.cancel()
        finally:
            with self._lock:
                self._uploads.discard(context)
        if isinstance(failure, DeadlineError) and context.ended:
            raise RefusedError(503, "the server stops") from failure
        if failure is not None:
            raise failure
        return answer

    def end_uploads(self) -> None:
        """Cancel the contexts of all uploads; may be called from any thread."""
        with self._lock:
            uploads = list(self._uploads)
        for context in uploads:
            context.cancel()

    def _take_place(self, kind: Principal) -> None:
        most = self._limits.streams
        of_kind = most if kind is Principal.ADMIN else most - most // 4
        with self._lock:
            if self._open.total() >= most or self._open[kind] >= of_kind:
                raise RefusedError(503, f"more than {most} streams at once, or {of_kind} of one kind of caller")
            self._open[kind] += 1

    def _give_place(self, kind: Principal) -> None:
        with self._lock:
            self._open[kind] -= 1

    async def _send(self, answer: StreamedResponse, source: _Source, scope: Scope, send: Send) -> None:
        piece: bytes | None = b""
        while piece == b"":
            piece = await source.pull()
        if piece is None:
            answer.headers.setdefault("Content-Length", "0")
        await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
        try:
            while piece is not None:
                if piece:
                    with anyio.fail_after(self._limits.stall_seconds):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await source.pull()
        except TimeoutError:
            logger.warning("%r: the reader took nothing for %g s", scope["path"], self._limits.stall_seconds)
            await break_connection(scope)
            return
        except Exception as error:  # noqa: BLE001 - it is logged
            mark = uuid.uuid4().hex[:12]
            log_failure(logger, error, "%r broke off: id=%s", scope["path"], mark)
            await break_connection(scope)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Source:
    """Reads an iterator in a worker thread, and closes it once no thread is inside it.

    A thread that waits inside the iterator, other than for an executor, cannot be interrupted: the stream keeps its
    place until it returns, so that readers who leave and come again cannot make threads without end.
    """

    def __init__(self, pieces: Iterator[bytes], limiter: anyio.CapacityLimiter, freed: Callable[[], None]) -> None:
        self._pieces = pieces
        self._limiter = limiter
        self._freed = freed
        self._inside = threading.Lock()
        self._context = Context()
        self._closing = self._closed = False

    async def pull(self) -> bytes | None:
        """Return the next piece; None at the end."""
        return await anyio.to_thread.run_sync(self._next, abandon_on_cancel=True, limiter=self._limiter)

    async def close(self) -> None:
        """Close the iterator: at once, or when the thread inside it returns."""
        self._closing = True
        self._context.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._close_if_free, limiter=self._limiter)

    def _next(self) -> bytes | None:
        try:
            with self._inside, waiting_for(self._context):
                return None if self._closing else next(self._pieces, None)
        finally:
            if self._closing:
                self._close_if_free()

    def _close_if_free(self) -> None:
        if not self._inside.acquire(blocking=False):
            return
        try:
            if not self._closed:
                self._closed = True
                self._freed()
                close: Callable[[], None] | None = getattr(self._pieces, "close", None)
                if close is not None:
                    close()
        finally:
            self._inside.release()


async def _cancel_when_gone(receive: Receive, cancel: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    cancel()


async def break_connection(scope: Scope) -> None:
    """Abort the connection of a request, and discard unsent data."""
    abort = scope.get("state", {}).get(ABORT)
    if abort is not None:
        abort()
        await anyio.sleep(0)  # the server hears of it before the application returns
