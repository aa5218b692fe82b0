"""Limits of requests, connections and streams."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of requests, connections and streams.

    Attributes:
        body_bytes: The largest JSON body.
        upload_bytes: The largest cache or source archive.
        header_bytes: The largest head of a request, in bytes.
        header_seconds: Seconds in which a request's head must arrive.
        form_bytes: The largest form of the page.
        body_seconds: Seconds in which a JSON body or a form must arrive.
        stall_seconds: Seconds that an upload may send nothing, or the reader of a stream read nothing.
        upload_rate: The lowest average rate of an upload, in bytes a second, after its first `stall_seconds`.
        keep_alive_seconds: Seconds that a connection is kept open between requests.
        connections: The most connections at once; a request on one more is answered 503.
        streams: The most streams and uploads at once; one more is answered 503. Of them three quarters may be of
            one kind of caller, so that none takes the places of the others; admins may take all.
        heartbeat_seconds: How often an idle event stream says that it lives.
        workers: Threads that answer requests.
    """

    body_bytes: int = 16 * 1024 * 1024
    upload_bytes: int = 16 * 1024 * 1024 * 1024
    header_bytes: int = 64 * 1024
    header_seconds: float = 20.0
    form_bytes: int = 64 * 1024
    body_seconds: float = 60.0
    stall_seconds: float = 300.0
    upload_rate: float = 1024.0
    keep_alive_seconds: int = 75
    connections: int = 2000
    streams: int = 512
    heartbeat_seconds: float = 15.0
    workers: int = 32
