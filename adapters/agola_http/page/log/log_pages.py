"""Parts of a step's log for the script: rows of a stored log and of one that grows; and the page of a search."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

from starlette.responses import Response

from agola_core.errors import BadRequestError
from agola_core.runservice.artifacts.log_lines import LogLines
from agola_http.page.area import TASK, PageArea, for_people, shows
from agola_http.page.log.log_rows import growing, html, rows
from agola_http.page.render import HTML, page
from agola_http.page.views import SETUP, view_run
from agola_http.server.endpoints import Call, Param, ParamKind, stream_answer, whole_number

WINDOW, _MAX_WINDOW = 500, 2000
_MOST_FOUND, _MAX_TEXT = 200, 200
STEP = Param("step", ParamKind.TEXT, "The step's number, or `setup`.", required=True)
FROM = Param("from", ParamKind.INTEGER, "The number of the first line, from 1; without it the last lines are shown.")
_TEXT = Param("text", ParamKind.TEXT, "What the lines have, whatever the case of its letters.", required=True)
_COUNT = Param("count", ParamKind.INTEGER, f"The most lines: {WINDOW} when missing, {_MAX_WINDOW} at most.")
_SKIP = Param("skip", ParamKind.INTEGER, "How many lines are left out at the beginning.")


class LogPages(PageArea):
    """Handlers of logs."""

    @shows(f"{TASK}/log/rows", STEP, FROM, _COUNT, waits=True)
    @for_people
    def rows(self, call: Call) -> Response:
        """Show some lines of a stored log, for the script: the rows alone."""
        count = call.integer("count", WINDOW)
        if not 0 < count <= _MAX_WINDOW:
            raise BadRequestError(f"count must be from 1 to {_MAX_WINDOW}")
        start = first_line(call, count)
        run_id, task_id, step = call.path_params["run_id"], call.path_params["task_id"], step_number(call.text("step"))
        with self._state.backend.gate.enter() as service:
            lines = service.log_lines(run_id, task_id, step, start, count)
        response = page("log_rows.html", shown_lines(lines))
        response.headers["X-Total"] = str(lines.total)
        return response

    @shows(f"{TASK}/log/follow", STEP, _SKIP, waits=True, in_maintenance=False)
    @for_people
    def follow(self, call: Call) -> Response:
        """Stream the rows of a log while it grows, for the script (see `log_rows.growing`)."""
        number, skip = step_number(call.text("step")), call.integer("skip", 0)
        pieces = self._state.service.open_log(
            call.path_params["run_id"], call.path_params["task_id"], number, follow=True
        )
        return stream_answer(growing(pieces, skip), HTML)

    @shows(f"{TASK}/log/find", STEP, _TEXT, waits=True)
    @for_people
    def find(self, call: Call) -> Response:
        """Show the lines of a stored log that have a text."""
        text, key = call.text("text"), call.text("step")
        if not 0 < len(text) <= _MAX_TEXT:
            raise BadRequestError(f"text must have from 1 to {_MAX_TEXT} characters")
        bundle, task = self._task(call)
        with self._state.backend.gate.enter() as service:
            found = service.find_log_lines(
                bundle.run.id, task.id, step_number(key), text.encode(errors="replace"), _MOST_FOUND, call.context
            )
        page_url = log_path(bundle.run.id, task.id)
        shown = [
            html(row, f"{page_url}?step={key}&from={max(1, row.number - 20)}")
            for line, data in found.lines
            for row in rows([data], line + 1)
        ]
        return self._page(
            call,
            "log_found.html",
            "runs",
            run=view_run(bundle.run, datetime.now(UTC)),
            task=task,
            step=task.step(key),
            text=text,
            rows=shown,
            complete=found.complete,
            page_url=page_url,
        )


def log_path(run_id: str, task_id: str) -> str:
    """Return the path of the page that shows a task's log."""
    return f"/page/runs/{quote(run_id)}/tasks/{quote(task_id)}/log"


def step_number(key: str) -> int | None:
    """Return the number of a step that a request names; None for the set-up.

    Raises:
        BadRequestError: It is neither.
    """
    return None if key == SETUP else whole_number(key, "step")


def first_line(call: Call, count: int) -> int:
    """Return where the lines that a request asks for begin, from 0; for the last ones, `-count`.

    Args:
        call: The request.
        count: How many lines are shown when it names none.

    Raises:
        BadRequestError: `from` is no line's number.
    """
    if "from" not in call.query_params:
        return -count
    first = call.integer("from")
    if first < 1:
        raise BadRequestError("from must be a line's number, from 1")
    return first - 1


def shown_lines(lines: LogLines) -> dict[str, object]:
    """Return what a template shows of lines."""
    shown = [html(row) for row in rows(lines.lines, lines.first + 1)]
    return {"rows": shown, "first": lines.first + 1, "total": lines.total}
