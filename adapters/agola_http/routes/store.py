"""Routes for administrative operations on the store: checkpoints, compaction, garbage collection."""

from __future__ import annotations

from starlette.responses import Response

from agola_core.datamanager import Checkpoint, Compacted, Garbage
from agola_http.access.principals import Principal
from agola_http.protocol.names import PREFIX
from agola_http.protocol.records import Checkpointed
from agola_http.server.endpoints import Area, Call, Param, ParamKind, endpoint, json_answer
from agola_http.server.state import State

_DRY_RUN = Param("dry_run", ParamKind.FLAG, "Only tell what would go.")


class Store(Area[State]):
    """Administrative operations on the store."""

    tag = "store"

    @endpoint("GET", f"{PREFIX}/checkpoints", Principal.CLIENT, answer=list[Checkpoint], in_maintenance=True)
    def checkpoints(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Return the retained checkpoints, oldest first."""
        return json_answer(self._state.datamanager.checkpoints())

    @endpoint("POST", f"{PREFIX}/checkpoints", Principal.ADMIN, answer=Checkpointed)
    def checkpoint(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Make a checkpoint now."""
        self._state.datamanager.checkpoint(force=True)
        status = self._state.datamanager.status()
        return json_answer(Checkpointed(str(status.checkpointed), status.manifest))

    @endpoint("POST", f"{PREFIX}/compactions", Principal.ADMIN, answer=Compacted)
    def compact(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Rewrite the whole store, without deleted and replaced objects."""
        return json_answer(self._state.datamanager.compact())

    @endpoint("POST", f"{PREFIX}/garbage", Principal.ADMIN, params=(_DRY_RUN,), answer=list[Garbage])
    def collect_garbage(self, call: Call) -> Response:
        """Delete the objects that nothing refers to, and return them."""
        return json_answer(self._state.datamanager.collect_garbage(dry_run=call.flag("dry_run")))
