"""Routes for logs of steps, from storage or, while they grow, from their executor."""

from __future__ import annotations

from datetime import datetime

from starlette.responses import Response

from agola_core.errors import BadRequestError
from agola_core.runservice.model.requests import LogPart
from agola_http.access.principals import Principal
from agola_http.protocol.names import OFFSET_HEADER, PREFIX, TEXT
from agola_http.server.endpoints import Area, Call, Param, ParamKind, endpoint, stream_answer, whole_number
from agola_http.server.state import State

_PARAMS = (
    Param("runid", ParamKind.TEXT, "The run.", required=True),
    Param("taskid", ParamKind.TEXT, "The task.", required=True),
    Param("step", ParamKind.INTEGER, "The step's number, from 0; without `setup`."),
    Param("setup", ParamKind.FLAG, "The log of the set-up; without `step`."),
    Param("follow", ParamKind.FLAG, "Go on until the step has ended."),
    Param(
        "timestamps",
        ParamKind.FLAG,
        "Before each line its time, in RFC 3339 with milliseconds in UTC, and a space; "
        "for a line whose time is not known `-` and as many spaces. A line comes when it has ended, or has 16 KiB.",
    ),
    Param("since", ParamKind.TEXT, "Only lines written from this time on (RFC 3339), or at a time that is not known."),
    Param("tail", ParamKind.INTEGER, "Only the last lines, so many."),
    Param("offset", ParamKind.INTEGER, f"Leave out so many bytes at the beginning; `{OFFSET_HEADER}` tells the sum."),
)


class Logs(Area[State]):
    """Logs of steps."""

    tag = "logs"

    @endpoint("GET", f"{PREFIX}/logs", Principal.CLIENT, params=_PARAMS, media_type=TEXT, errors=(404,), waits=True)
    def log(self, call: Call) -> Response:
        """Stream the log of a step, and with `follow` what is added until the step has ended.

        The answer to `since`, `tail` and `offset` tells in `Agola-Offset` at which byte of the log it begins.
        """
        run_id, task_id = call.text("runid"), call.text("taskid")
        setup, step = call.flag("setup"), call.text("step")
        if not run_id or not task_id or setup == bool(step):
            raise BadRequestError("logs needs runid, taskid, and either setup or step")
        number = None if setup else whole_number(step, "step")
        if number is not None and number < 0:
            raise BadRequestError("step must not be negative")
        part, service = _part(call), self._state.service
        headers = {}
        if part != LogPart(timestamps=part.timestamps):
            part = LogPart(timestamps=part.timestamps, offset=service.log_begin(run_id, task_id, number, part))
            headers[OFFSET_HEADER] = str(part.offset)
        pieces = service.open_log(run_id, task_id, number, follow=call.flag("follow"), part=part)
        return stream_answer(pieces, TEXT, headers)


def _part(call: Call) -> LogPart:
    """Return which part of a log a request asks for.

    Raises:
        BadRequestError: It is malformed.
    """
    since, tail, offset = call.text("since"), None, 0
    if "tail" in call.query_params:
        tail = call.integer("tail")
    if "offset" in call.query_params:
        offset = call.integer("offset")
    if (tail or 0) < 0 or offset < 0:
        raise BadRequestError("tail and offset must not be negative")
    try:
        time = datetime.fromisoformat(since) if since else None
    except ValueError as error:
        raise BadRequestError(f"since must be a time of RFC 3339, not {since[:40]!r}") from error
    if time is not None and time.tzinfo is None:
        raise BadRequestError(f"since needs a time zone, such as 2026-01-31T12:00:00Z, not {since[:40]!r}")
    return LogPart(timestamps=call.flag("timestamps"), since=time, tail=tail, offset=offset)
