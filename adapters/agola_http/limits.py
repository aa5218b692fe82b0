"""What one client may take of the server."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of requests, connections and streams.

    Attributes:
        body_bytes: The largest JSON body.
        upload_bytes: The largest cache or source archive.
        header_bytes: The most bytes of a request's head.
        header_seconds: How long a request's head may take to arrive.
        body_seconds: How long a JSON body may take to arrive.
        stall_seconds: How long an upload may bring nothing, or the reader of a stream take nothing.
        keep_alive_seconds: How long a connection is kept between requests.
        connections: The most connections at once; a request on one more is answered 503.
        streams: The most streams and uploads at once; one more is answered 503.
        heartbeat_seconds: How often an idle event stream says that it lives.
        workers: Threads that answer requests.
    """

    body_bytes: int = 16 * 1024 * 1024
    upload_bytes: int = 16 * 1024 * 1024 * 1024
    header_bytes: int = 64 * 1024
    header_seconds: float = 20.0
    body_seconds: float = 60.0
    stall_seconds: float = 300.0
    keep_alive_seconds: int = 75
    connections: int = 2000
    streams: int = 512
    heartbeat_seconds: float = 15.0
    workers: int = 32
