"""What operators and tools ask: health, readiness, version, status, metrics and the OpenAPI document."""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.responses import Response

from agola_core.__about__ import __version__
from agola_core.datamanager.read.snapshot import Status
from agola_core.errors import UnavailableError
from agola_http.access.principals import Principal
from agola_http.protocol.errors import RefusedError
from agola_http.protocol.names import JSON, PREFIX
from agola_http.protocol.records import Health, Version
from agola_http.server.endpoints import Call, Endpoint, json_answer
from agola_http.server.metrics import MEDIA_TYPE as PROMETHEUS
from agola_http.server.state import State

logger = logging.getLogger(__name__)

_TAG = "operations"


class Operations:
    """The handlers.

    Args:
        state: What they work on.
        metrics: Returns the metrics in Prometheus' text format.
        document: Returns the OpenAPI document.
    """

    def __init__(self, state: State, metrics: Callable[[], bytes], document: Callable[[], bytes]) -> None:
        self._state = state
        self._metrics = metrics
        self._document = document

    def endpoints(self) -> list[Endpoint]:
        """Return the rows of this area."""
        public = Principal.PUBLIC
        return [
            Endpoint(
                "GET", "/healthz", self.health, public, "Tell that the process lives.", _TAG,
                answer=Health, in_maintenance=True,
            ),
            Endpoint(
                "GET", "/readyz", self.ready, public, "Tell whether requests would be served.", _TAG,
                answer=Health, in_maintenance=True,
            ),
            Endpoint(
                "GET", "/version", self.version, public, "Tell what runs.", _TAG,
                answer=Version, in_maintenance=True,
            ),
            Endpoint(
                "GET", f"{PREFIX}/status", self.store_status, Principal.CLIENT, "Return the state of the store.", _TAG,
                answer=Status, in_maintenance=True,
            ),
            Endpoint(
                "GET", "/metrics", self.metrics, Principal.CLIENT, "Return metrics in Prometheus' text format.", _TAG,
                media_type=PROMETHEUS, in_maintenance=True,
            ),
            Endpoint(
                "GET", "/openapi.json", self.openapi, public, "Return this document.", _TAG,
                media_type=JSON, in_maintenance=True,
            ),
        ]  # fmt: skip

    def health(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Tell that the process lives."""
        return json_answer(Health("ok"))

    def ready(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Tell whether requests would be served: the store answers, and the run service is not in maintenance mode."""
        try:
            self._state.datamanager.status()
        except UnavailableError as error:
            logger.warning("not ready: %s", error)
            raise RefusedError(503, "the store does not answer") from error
        with self._state.backend.gate.enter():
            return json_answer(Health("ready"))

    def metrics(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Return metrics."""
        return Response(self._metrics(), headers={"Content-Type": PROMETHEUS})

    def openapi(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Return the OpenAPI document."""
        return Response(self._document(), headers={"Content-Type": JSON})

    def version(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Tell what runs."""
        return json_answer(Version("agola-core", __version__, PREFIX))

    def store_status(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Return the state of the store."""
        return json_answer(self._state.datamanager.status())
