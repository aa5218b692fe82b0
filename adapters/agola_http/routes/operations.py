"""What operators and tools ask: health, readiness, version, status, metrics and the OpenAPI document."""

from __future__ import annotations

import msgspec

from agola_core.__about__ import __version__
from agola_core.datamanager.snapshot import Status
from agola_http.endpoints import PREFIX, Answer, Call, Endpoint, Principal, json_answer
from agola_http.state import State

_TAG = "operations"


class Health(msgspec.Struct, frozen=True):
    """That the process lives, or whether it is ready."""

    status: str


class Version(msgspec.Struct, frozen=True):
    """What runs."""

    name: str
    version: str
    api: str


class Operations:
    """The handlers.

    Args:
        state: What they work on.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def endpoints(self) -> list[Endpoint]:
        """Return the rows of this area."""
        public = Principal.PUBLIC
        return [
            Endpoint(
                "GET", "/healthz", self.health, public, "Tell that the process lives.", _TAG,
                answer=Health, in_maintenance=True,
            ),
            Endpoint(
                "GET", "/version", self.version, public, "Tell what runs.", _TAG,
                answer=Version, in_maintenance=True,
            ),
            Endpoint(
                "GET", f"{PREFIX}/status", self.status, Principal.CLIENT, "Return the state of the store.", _TAG,
                answer=Status, in_maintenance=True,
            ),
        ]  # fmt: skip

    def health(self, call: Call) -> Answer:  # noqa: ARG002 - a handler
        """Tell that the process lives."""
        return json_answer(Health("ok"))

    def version(self, call: Call) -> Answer:  # noqa: ARG002 - a handler
        """Tell what runs."""
        return json_answer(Version("agola-core", __version__, PREFIX))

    def status(self, call: Call) -> Answer:  # noqa: ARG002 - a handler
        """Return the state of the store."""
        return json_answer(self._state.datamanager.status())
