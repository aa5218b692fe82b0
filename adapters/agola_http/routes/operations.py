"""Routes for operators and tools: health, readiness, version, status, metrics and the OpenAPI document."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
from starlette.responses import Response

from agola_core.__about__ import __version__
from agola_core.errors import UnavailableError
from agola_http.access.principals import Principal
from agola_http.protocol.errors import RefusedError
from agola_http.protocol.names import JSON, PREFIX
from agola_http.protocol.records import Health, ServiceStatus, Version
from agola_http.server.endpoints import Area, Call, endpoint, json_answer
from agola_http.server.metrics import MEDIA_TYPE as PROMETHEUS
from agola_http.server.state import State

logger = logging.getLogger(__name__)


class Operations(Area[State]):
    """Health, version, status, metrics and the OpenAPI document.

    Args:
        state: What they work on.
        metrics: Returns the metrics in Prometheus' text format.
        document: Returns the OpenAPI document.
    """

    tag = "operations"

    def __init__(self, state: State, metrics: Callable[[], bytes], document: Callable[[], bytes]) -> None:
        super().__init__(state)
        self._metrics = metrics
        self._document = document

    @endpoint("GET", "/healthz", Principal.PUBLIC, answer=Health, in_maintenance=True)
    def health(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Answer that the process is alive."""
        return json_answer(Health("ok"))

    @endpoint("GET", "/readyz", Principal.PUBLIC, answer=Health, in_maintenance=True)
    def ready(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Return whether requests are served.

        They are if the store answers and the run service is not in maintenance mode.
        """
        try:
            self._state.datamanager.status()
        except UnavailableError as error:
            logger.warning("not ready: %s", error)
            raise RefusedError(503, "the store does not answer") from error
        with self._state.backend.gate.enter():
            return json_answer(Health("ready"))

    @endpoint("GET", "/metrics", Principal.CLIENT, media_type=PROMETHEUS, in_maintenance=True)
    def metrics(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Return metrics in Prometheus' text format."""
        return Response(self._metrics(), headers={"Content-Type": PROMETHEUS})

    @endpoint("GET", "/openapi.json", Principal.PUBLIC, media_type=JSON, in_maintenance=True)
    def openapi(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Return this document."""
        return Response(self._document(), headers={"Content-Type": JSON})

    @endpoint("GET", "/version", Principal.PUBLIC, answer=Version, in_maintenance=True)
    def version(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Return the version of the service."""
        return json_answer(Version("agola-core", __version__, PREFIX))

    @endpoint("GET", f"{PREFIX}/status", Principal.CLIENT, answer=ServiceStatus, in_maintenance=True)
    def store_status(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Return the state of the store, its last export and its last verify."""
        status, notes = self._state.datamanager.status(), self._state.notes.read()
        return json_answer(
            ServiceStatus(
                **msgspec.structs.asdict(status),
                storage_answers=notes.away_since is None,
                last_export=notes.exported,
                last_verify=notes.verified,
            )
        )
