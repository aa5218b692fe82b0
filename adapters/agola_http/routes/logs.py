"""Routes for logs of steps, from storage or, while they grow, from their executor."""

from __future__ import annotations

from starlette.responses import Response

from agola_core.errors import BadRequestError
from agola_http.access.principals import Principal
from agola_http.protocol.names import PREFIX, TEXT
from agola_http.server.endpoints import Area, Call, Param, ParamKind, endpoint, stream_answer, whole_number
from agola_http.server.state import State

_PARAMS = (
    Param("runid", ParamKind.TEXT, "The run.", required=True),
    Param("taskid", ParamKind.TEXT, "The task.", required=True),
    Param("step", ParamKind.INTEGER, "The step's number, from 0; without `setup`."),
    Param("setup", ParamKind.FLAG, "The log of the set-up; without `step`."),
    Param("follow", ParamKind.FLAG, "Go on until the step has ended."),
)


class Logs(Area[State]):
    """Logs of steps."""

    tag = "logs"

    @endpoint("GET", f"{PREFIX}/logs", Principal.CLIENT, params=_PARAMS, media_type=TEXT, errors=(404,), waits=True)
    def log(self, call: Call) -> Response:
        """Stream the log of a step, and with `follow` what is added until the step has ended."""
        run_id, task_id = call.text("runid"), call.text("taskid")
        setup, step = call.flag("setup"), call.text("step")
        if not run_id or not task_id or setup == bool(step):
            raise BadRequestError("logs needs runid, taskid, and either setup or step")
        number = None if setup else whole_number(step, "step")
        if number is not None and number < 0:
            raise BadRequestError("step must not be negative")
        pieces = self._state.service.open_log(run_id, task_id, number, follow=call.flag("follow"))
        return stream_answer(pieces, TEXT)
