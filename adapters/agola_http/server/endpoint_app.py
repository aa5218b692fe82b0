"""One path of the route table as an ASGI application: authorizes, reads the body, calls the handler, answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agola_core.errors import MaintenanceError
from agola_core.maintenance import Gate
from agola_http.access.control import Access
from agola_http.access.principals import Caller, Principal
from agola_http.protocol.names import FORM
from agola_http.server.connections.bodies import read_body, upload_pieces
from agola_http.server.connections.limits import Limits
from agola_http.server.connections.streams import StreamedResponse, Streams, break_connection
from agola_http.server.endpoints import Call, Endpoint
from agola_http.server.middleware import exchange_of
from agola_http.server.request_json import decode


class EndpointApp:
    """Serves one path.

    Args:
        rows: The endpoints of the path, by method.
        access: Access control.
        streams: The streams, uploads and threads of the server.
        limits: Limits of requests, connections and streams.
        gate: The gate that calls pass unless they are also served in maintenance mode; None if all are served.

    Attributes:
        methods: The methods of the path.
    """

    def __init__(
        self,
        rows: Mapping[str, Endpoint],
        access: Access,
        streams: Streams,
        limits: Limits,
        gate: Gate[Any] | None,
    ) -> None:
        self.methods = tuple(rows)
        self._rows = rows
        self._access = access
        self._streams = streams
        self._limits = limits
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request with one of the methods."""
        endpoint, exchange = self._rows[scope["method"]], exchange_of(scope)
        exchange.route = endpoint.path
        caller = self._access.admit(endpoint.principal, Headers(scope=scope))
        exchange.caller = str(caller)
        async with self._inside(endpoint, scope):
            response = await self._call(endpoint, caller, scope, receive)
            if isinstance(response, StreamedResponse):
                await self._streams.send(response, _kind(caller, endpoint), scope, receive, send)
                return
        await response(scope, receive, send)

    @asynccontextmanager
    async def _inside(self, endpoint: Endpoint, scope: Scope) -> AsyncIterator[None]:
        """Hold the gate during a call, or answer 503; disconnects a call that maintenance mode does not wait for."""
        if self._gate is None or endpoint.in_maintenance:
            yield
            return
        loop = asyncio.get_running_loop()
        cut = anyio.CancelScope()
        with self._gate.enter(lambda: loop.call_soon_threadsafe(cut.cancel)), cut:
            yield
        if cut.cancelled_caught:
            await break_connection(scope)
            raise MaintenanceError("the service went into maintenance mode: try again later")

    async def _call(self, endpoint: Endpoint, caller: Caller, scope: Scope, receive: Receive) -> Response:
        limits, call = self._limits, Call(scope, caller)
        data, streamed = b"", endpoint.waits
        if endpoint.upload == FORM:
            call.upload = iter([await read_body(call.headers, receive, limits.form_bytes, limits.body_seconds)])
        elif endpoint.upload is not None:
            most = None if endpoint.principal is Principal.ADMIN else limits.upload_bytes
            call.upload, streamed = upload_pieces(call.headers, receive, most, limits), True
        elif endpoint.body is not None:
            data = await read_body(call.headers, receive, limits.body_bytes, limits.body_seconds)

        def work() -> Response:
            if endpoint.body is not None:
                call.body = decode(data, endpoint.body)
            return endpoint.handler(call)

        if streamed:
            with self._streams.place(_kind(caller, endpoint)):
                return await self._streams.take(work, call.context, scope)
        return await anyio.to_thread.run_sync(work, limiter=self._streams.workers)


def _kind(caller: Caller, endpoint: Endpoint) -> Principal:
    """Return the kind of caller whose limit of streams applies."""
    if caller.is_known:
        return caller.principal
    return Principal.CLIENT if endpoint.principal is Principal.PUBLIC else endpoint.principal
