"""The ASGI application that serves a run service: the route table with access control and metrics."""

from __future__ import annotations

from agola_core.runservice.model.gojson import encode
from agola_http.access.control import Access
from agola_http.outbound.listen_policy import ListenPolicy
from agola_http.page.render import error_page
from agola_http.routes import table
from agola_http.server.application import Application
from agola_http.server.connections.limits import Limits
from agola_http.server.endpoints import Endpoint
from agola_http.server.metrics import Metrics
from agola_http.server.openapi import document
from agola_http.server.state import Backend, State


class App(Application):
    """The ASGI application that serves a run service.

    Args:
        backend: The run service and its store.
        access: Access control; by default everybody may call.
        limits: Limits of requests, connections and streams.
        listen_policy: Addresses that executors may listen on.

    Attributes:
        state: The state that all handlers share.
    """

    def __init__(
        self,
        backend: Backend,
        access: Access | None = None,
        limits: Limits | None = None,
        listen_policy: ListenPolicy | None = None,
    ) -> None:
        self.state = State(backend, limits, listen_policy, access)
        endpoints: list[Endpoint] = []
        metrics = Metrics(self.state, lambda: self.open_streams)
        endpoints += table(self.state, metrics.render, lambda: encode(document(endpoints)))
        super().__init__(
            endpoints,
            self.state.access,
            self.state.limits,
            gate=backend.gate,
            observe=metrics.observe,
            error_page=error_page,
        )

    def end_streams(self) -> None:
        """End the streams that have no end of their own, and abort uploads, because the server stops."""
        self.state.ending.set()
        self.end_uploads()
