"""Routes for run events: Agola's stream, byte for byte, and one that can be resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from starlette.responses import Response

from agola_core.errors import ClosedError
from agola_core.runservice.model.gojson import encode
from agola_core.runservice.model.types import RunEvent
from agola_core.runservice.state.events import EventFeed
from agola_http.access.principals import Principal
from agola_http.protocol.names import EVENT_STREAM, NO_CACHE, PREFIX
from agola_http.server.connections.streams import StreamedResponse
from agola_http.server.endpoints import Area, Call, Param, ParamKind, endpoint
from agola_http.server.state import State

_POLL_SECONDS = 1.0
_HEADERS = {"Content-Type": EVENT_STREAM, **NO_CACHE, "Connection": "keep-alive"}
_HEARTBEAT = b": still here\n\n"
_SHUTDOWN = b"event: shutdown\ndata: {}\n\n"


class Events(Area[State]):
    """Run events."""

    tag = "events"

    @endpoint(
        "GET",
        f"{PREFIX}/runs/events",
        Principal.CLIENT,
        params=(Param("startruneventid", ParamKind.TEXT, "Ignored, as by Agola."),),
        media_type=EVENT_STREAM,
    )
    def agola_events(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Stream the run events from now on, as Agola does: without ids, heartbeats or resumption."""
        feed = self._state.service.watch_events()
        return StreamedResponse(_followed(feed, self._ends, _agola_event), headers=_HEADERS)

    @endpoint(
        "GET",
        f"{PREFIX}/events",
        Principal.CLIENT,
        params=(Param("after", ParamKind.TEXT, "Go on after the event of this id."),),
        media_type=EVENT_STREAM,
    )
    def events(self, call: Call) -> Response:
        """Stream the run events as server-sent events with ids; the header Last-Event-ID resumes after one."""
        feed = self._state.service.watch_events(call.headers.get("last-event-id") or call.text("after"))
        pieces = self._with_heartbeats(_start(feed.after), _followed(feed, self._ends, _event))
        return StreamedResponse(pieces, headers=_HEADERS)

    def _ends(self) -> bool:
        """Return whether the server stops, or enters maintenance mode."""
        return self._state.ending.is_set() or not self._state.backend.gate.is_open

    def _with_heartbeats(self, start: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
        yield start
        last = time.monotonic()
        for piece in pieces:
            if piece or time.monotonic() - last >= self._state.limits.heartbeat_seconds:
                last = time.monotonic()
                yield piece or _HEARTBEAT
            else:
                yield b""
        yield _SHUTDOWN


def _followed(feed: EventFeed, ends: Callable[[], bool], shown: Callable[[RunEvent], bytes]) -> Iterator[bytes]:
    """Yield the events of a feed until the server ends; b"" now and then, so that a reader that left is noticed."""
    with feed:
        try:
            while not ends():
                event = feed.next(_POLL_SECONDS)
                yield b"" if event is None else shown(event)
        except ClosedError:
            return


def _start(place: str) -> bytes:
    """Return the first event: the position from which to resume if the stream breaks before the first run event."""
    return b"retry: 1000\nid: " + place.encode() + b"\nevent: start\ndata: {}\n\n"


def _agola_event(event: RunEvent) -> bytes:
    return b"data: " + encode(event) + b"\n\n"


def _event(event: RunEvent) -> bytes:
    return b"id: " + event.sequence.encode() + b"\nevent: run\ndata: " + encode(event) + b"\n\n"
