"""The upkeep that an operator asks a store for."""

from __future__ import annotations

from starlette.responses import Response

from agola_core.datamanager import Checkpoint, Compacted
from agola_core.datamanager.background.gc import Garbage
from agola_http.access.principals import Principal
from agola_http.protocol.names import PREFIX
from agola_http.protocol.records import Checkpointed
from agola_http.server.endpoints import Call, Endpoint, Param, ParamKind, json_answer
from agola_http.server.state import State

_TAG = "store"
_DRY_RUN = Param("dry_run", ParamKind.FLAG, "Only tell what would go.")


class Store:
    """The handlers.

    Args:
        state: What they work on.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def endpoints(self) -> list[Endpoint]:
        """Return the rows of this area."""
        return [
            Endpoint(
                "GET", f"{PREFIX}/checkpoints", self.checkpoints, Principal.CLIENT,
                "Return the states that are retained, the oldest first.", _TAG,
                answer=list[Checkpoint], in_maintenance=True,
            ),
            Endpoint(
                "POST", f"{PREFIX}/checkpoints", self.checkpoint, Principal.ADMIN, "Make a checkpoint now.", _TAG,
                answer=Checkpointed,
            ),
            Endpoint(
                "POST", f"{PREFIX}/compactions", self.compact, Principal.ADMIN,
                "Write the whole store anew, without what is deleted or replaced.", _TAG, answer=Compacted,
            ),
            Endpoint(
                "POST", f"{PREFIX}/garbage", self.collect_garbage, Principal.ADMIN,
                "Delete the objects that nothing refers to, and return them.", _TAG,
                params=(_DRY_RUN,), answer=list[Garbage],
            ),
        ]  # fmt: skip

    def checkpoints(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Return the states that are retained."""
        return json_answer(self._state.datamanager.checkpoints())

    def checkpoint(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Make a checkpoint."""
        self._state.datamanager.checkpoint(force=True)
        status = self._state.datamanager.status()
        return json_answer(Checkpointed(str(status.checkpointed), status.manifest))

    def compact(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Compact the store."""
        return json_answer(self._state.datamanager.compact())

    def collect_garbage(self, call: Call) -> Response:
        """Delete what nothing refers to, or only tell it with `dry_run`."""
        return json_answer(self._state.datamanager.collect_garbage(dry_run=call.flag("dry_run")))
