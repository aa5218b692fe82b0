"""What requests meet while the service is in maintenance mode: 503, never 404, by which executors delete data."""

from __future__ import annotations

import asyncio

import anyio
import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from agola_core.errors import MaintenanceError
from agola_core.maintenance import Gate
from agola_core.runservice.service import RunService

_PREFIX = "/api/"
_ALWAYS = tuple(f"/api/v1alpha/{name}" for name in ("maintenance", "export", "import"))
_RETRY_SECONDS = 5


class MaintenanceGate:
    """Middleware that lets requests to the service in while it serves, and cuts them off when they are too slow.

    Args:
        app: The application.
        gate: The service's.
    """

    def __init__(self, app: ASGIApp, gate: Gate[RunService]) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith(_PREFIX) or path in _ALWAYS:
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        cut = anyio.CancelScope()
        try:
            with self._gate.enter(lambda: loop.call_soon_threadsafe(cut.cancel)), cut:
                await self._app(scope, receive, send)
        except MaintenanceError as error:
            headers = {"Retry-After": str(_RETRY_SECONDS)}
            body = msgspec.json.encode({"message": str(error)})
            await Response(body, 503, headers, "application/json")(scope, receive, send)
