"""Pages of a step's log: windows of a stored log and search in it; a growing log is left to the script."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from starlette.responses import Response

from agola_core.errors import BadRequestError, NotFoundError
from agola_core.runservice.artifacts.log_lines import LogLines
from agola_core.runservice.model.types import FetchPhase
from agola_http.page.area import TASK, PageArea, for_people, shows
from agola_http.page.log_rows import rows
from agola_http.page.render import page
from agola_http.page.views import view_run
from agola_http.protocol.names import PREFIX
from agola_http.server.endpoints import Call, Param, ParamKind

_WINDOW, _MAX_WINDOW = 500, 2000
_MOST_FOUND, _MAX_TEXT = 200, 200
_STEP = Param("step", ParamKind.INTEGER, "The step's number.", required=True)
_FROM = Param("from", ParamKind.INTEGER, "The number of the first line, from 1; without it the last lines are shown.")
_TEXT = Param("text", ParamKind.TEXT, "What the lines have, whatever the case of its letters.", required=True)
_COUNT = Param("count", ParamKind.INTEGER, f"The most lines: {_WINDOW} when missing, {_MAX_WINDOW} at most.")


class LogPages(PageArea):
    """Handlers of logs."""

    @shows(f"{TASK}/log", _STEP, _FROM, waits=True)
    @for_people
    def log(self, call: Call) -> Response:
        """Show a step's log, at first its end; a log that grows is left to the script."""
        number = call.integer("step")
        bundle, task = self._task(call)
        if not 0 <= number < len(task.steps):
            raise NotFoundError(f"task {task.name!r} has no step {number}")
        step = task.steps[number]
        stored = bundle.run.tasks[task.id].steps[number].log_phase is FetchPhase.FINISHED
        raw = urlencode({"runid": bundle.run.id, "taskid": task.id, "step": number})
        values: dict[str, object] = {
            "run": view_run(bundle.run, datetime.now(UTC)),
            "task": task,
            "step": step,
            "follow": step.has_log and not stored,
            "raw_url": f"{PREFIX}/logs?{raw}",
            "page_url": _log_path(bundle.run.id, task.id),
            "window": _WINDOW,
        }
        lines = self._lines(call, _WINDOW) if stored and step.has_log else LogLines(0, [], 0, 0)
        at_end = bool(lines.lines) and lines.first + len(lines.lines) == lines.total and "from" not in call.query_params
        return self._page(call, "log.html", "runs", **values, **_shown(lines), at_end=at_end)

    @shows(f"{TASK}/log/rows", _STEP, _FROM, _COUNT, waits=True)
    @for_people
    def rows(self, call: Call) -> Response:
        """Show some lines of a stored log, for the script: the rows alone."""
        count = call.integer("count", _WINDOW)
        if not 0 < count <= _MAX_WINDOW:
            raise BadRequestError(f"count must be from 1 to {_MAX_WINDOW}")
        lines = self._lines(call, count)
        response = page("log_rows.html", _shown(lines))
        response.headers["X-Total"] = str(lines.total)
        return response

    @shows(f"{TASK}/log/find", _STEP, _TEXT, waits=True)
    @for_people
    def find(self, call: Call) -> Response:
        """Show the lines of a stored log that have a text."""
        text, number = call.text("text"), call.integer("step")
        if not 0 < len(text) <= _MAX_TEXT:
            raise BadRequestError(f"text must have from 1 to {_MAX_TEXT} characters")
        bundle, task = self._task(call)
        with self._state.backend.gate.enter() as service:
            found = service.find_log_lines(
                bundle.run.id, task.id, number, text.encode(errors="replace"), _MOST_FOUND, call.context
            )
        shown = [row for line, data in found.lines for row in rows([data], line + 1)]
        return self._page(
            call,
            "log_found.html",
            "runs",
            run=view_run(bundle.run, datetime.now(UTC)),
            task=task,
            step=task.steps[number],
            text=text,
            rows=shown,
            complete=found.complete,
            page_url=_log_path(bundle.run.id, task.id),
        )

    def _lines(self, call: Call, count: int) -> LogLines:
        first = call.integer("from", 0)
        if "from" in call.query_params and first < 1:
            raise BadRequestError("from must be a line's number, from 1")
        first = first - 1 if first else -count
        run_id, task_id, step = call.path_params["run_id"], call.path_params["task_id"], call.integer("step")
        with self._state.backend.gate.enter() as service:
            return service.log_lines(run_id, task_id, step, first, count)


def _log_path(run_id: str, task_id: str) -> str:
    return f"/page/runs/{quote(run_id)}/tasks/{quote(task_id)}/log"


def _shown(lines: LogLines) -> dict[str, object]:
    return {"rows": list(rows(lines.lines, lines.first + 1)), "first": lines.first + 1, "total": lines.total}
