"""The ASGI application of a route table: starlette's router and middleware, with one route for each path."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from agola_core.errors import MaintenanceError, UnauthorizedError
from agola_core.maintenance import Gate
from agola_core.runservice.model.gojson import encode
from agola_http.access.control import Access
from agola_http.protocol.errors import NO_ROUTE, ErrorDocument, RefusedError, Told, describe
from agola_http.protocol.names import JSON, PREFIX
from agola_http.server.connections.limits import Limits
from agola_http.server.connections.streams import Streams
from agola_http.server.endpoint_app import EndpointApp
from agola_http.server.endpoints import Endpoint
from agola_http.server.middleware import HeadCheck, Observe, RequestLog

RETRY_SECONDS = 5
"""After how many seconds what is unavailable is worth another try."""

ErrorPage = Callable[[Told, bool], Response]
"""Makes the page that tells people of an error; whether asking again may help is the second argument."""


class Application(Router):
    """Serves a route table.

    Args:
        endpoints: The route table; the first path that matches a request wins.
        access: Access control.
        limits: Limits of requests, connections and streams.
        gate: The gate that calls pass unless they are also served in maintenance mode; None if all are served.
        observe: Called with the method, route, status and seconds of every request.
        error_page: Makes the errors that browsers show; None if all callers are programs, which get JSON.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        access: Access,
        limits: Limits,
        *,
        gate: Gate[Any] | None = None,
        observe: Observe = lambda *_: None,
        error_page: ErrorPage | None = None,
    ) -> None:
        self.endpoints = tuple(endpoints)
        self._error_page = error_page
        self._gate = gate
        self._streams = Streams(limits)
        paths: dict[str, dict[str, Endpoint]] = {}
        for endpoint in endpoints:
            paths.setdefault(endpoint.path, {}).setdefault(endpoint.method, endpoint)
        super().__init__(
            [_route(path, EndpointApp(rows, access, self._streams, limits, gate)) for path, rows in paths.items()],
            redirect_slashes=False,
            middleware=[
                Middleware(RequestLog, observe=observe),
                Middleware(
                    ExceptionMiddleware, handlers=dict.fromkeys((Exception, HTTPException), self._error_response)
                ),
                Middleware(HeadCheck, limit=limits.header_bytes),
            ],
        )

    @property
    def open_streams(self) -> int:
        """The number of open streams and uploads."""
        return self._streams.open

    def end_uploads(self) -> None:
        """Abort uploads if possible; may be called from any thread."""
        self._streams.end_uploads()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["app"] = self  # so that the router raises what it refuses, for `_error_response`
        await super().__call__(scope, receive, send)

    async def _error_response(self, request: Request, error: Exception) -> Response:
        headers = {}
        if isinstance(error, HTTPException):
            if error.headers:
                headers["Allow"] = ", ".join(sorted(error.headers["Allow"].split(", ")))
            error = self._unrouted(request.scope["path"], error.status_code)
        told = describe(error, f"{request.method} {request.scope['path'][:500]!r}")
        headers |= told.headers()
        if isinstance(error, UnauthorizedError):
            headers["WWW-Authenticate"] = "Bearer"
        if told.status == 503:
            headers["Retry-After"] = str(RETRY_SECONDS)
        if self._error_page is not None and _is_browser(request):
            response = self._error_page(told, told.status == 503 and request.method == "GET")
            response.headers.update(headers)
            return response
        return Response(encode(ErrorDocument(told.message)), told.status, {"Content-Type": JSON, **headers})

    def _unrouted(self, path: str, status: int) -> Exception:
        """Return the response to a request without a route; in maintenance mode it is always 503."""
        if not path.startswith(PREFIX):
            return RefusedError(status, "method not allowed" if status == 405 else NO_ROUTE)
        if self._gate is not None:
            try:
                with self._gate.enter():
                    pass
            except MaintenanceError as error:
                return error
        return RefusedError(405, "method not allowed") if status == 405 else RefusedError(400, "unknown path")


def _is_browser(request: Request) -> bool:
    """Return whether somebody looks at the answer: programs, scripts of the page among them, ask for any type."""
    return "text/html" in request.headers.get("accept", "")


def _route(path: str, app: EndpointApp) -> Route:
    route = Route(path, app, methods=app.methods)
    route.path_regex = re.compile(route.path_regex.pattern.removesuffix("$") + r"\Z")  # no newline after the end
    route.methods = set(app.methods)  # as by Agola, HEAD is served only where a row says so
    return route
