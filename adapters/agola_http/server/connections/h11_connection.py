"""Extends uvicorn's HTTP connection: a time limit for request heads, and a way to abort a stream at once."""

from __future__ import annotations

import asyncio
import select

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

from agola_http.protocol.errors import ErrorDocument
from agola_http.server.connections.streams import ABORT, HAS_LEFT

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
SAFE = (
    ("Content-Security-Policy", _POLICY),
    ("Referrer-Policy", "same-origin"),
    ("X-Content-Type-Options", "nosniff"),
)
"""Sent with every answer: whatever a browser is made to open here, no script in it runs but the page's own."""


class Connection(H11Protocol):
    """One connection."""

    header_seconds = 20.0

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit of the first request's head."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, ABORT: transport.abort, HAS_LEFT: self._has_left}
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Receive bytes; a request head must be complete in time."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timer."""
        self._forget_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer malformed HTTP with an error document, as all other errors."""
        body = msgspec.json.encode(ErrorDocument(msg))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *((name.lower().encode(), value.encode()) for name, value in SAFE),
        ]
        try:
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
        except h11.LocalProtocolError:
            pass  # an answer is under way already
        self.transport.close()

    def _has_left(self) -> bool:
        """Return whether the peer has closed the connection, even if bytes from it are unread."""
        if self.transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket"), select.POLLRDHUP)
        return bool(poll.poll(0))

    def _watch_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._forget_timer()
        elif self._head_timer is None and self.timeout_keep_alive_task is None:
            self._head_timer = self.loop.call_later(self.header_seconds, self._head_too_slow)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_too_slow(self) -> None:
        self._head_timer = None
        self.transport.abort()
