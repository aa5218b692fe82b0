"""Parts of a step's log for the script: rows, those that grow, and ways to other lines; and the page of a search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from urllib.parse import quote

from starlette.responses import Response

from agola_core.errors import BadRequestError
from agola_core.runservice.logs.line_index import NOT_COUNTED
from agola_core.runservice.logs.log_view import LogView, Piece
from agola_core.runservice.model.line_times import GrowingTimes
from agola_http.page.area import PART, TASK, PageArea, for_people, shows
from agola_http.page.log.groups import window_html
from agola_http.page.log.growing import growing
from agola_http.page.log.log_rows import html, rows
from agola_http.page.render import HTML, page, redirect
from agola_http.page.views import SETUP, view_run
from agola_http.server.endpoints import Call, Param, ParamKind, stream_answer, whole_number
from agola_http.server.state import State

WINDOW, _MAX_WINDOW = 500, 2000
WINDOW_BYTES, _ROWS_BYTES = 40 * 1024, 1024 * 1024
"""About how much of a page's bytes are for its log at first, and for rows that the script asks for."""
_MOST_FOUND, _MAX_TEXT = 200, 200
_COUNTED_AT_ONCE = 4 * 1024 * 1024
"""The errors of a log of so many bytes are counted when it is shown; those of a larger one when the script asks."""
STEP = Param("step", ParamKind.TEXT, "The step's number, or `setup`.", required=True)
FROM = Param("from", ParamKind.INTEGER, "The number of the first line, from 1; without it the last lines are shown.")
AT = Param("at", ParamKind.INTEGER, "The number of a line, from 1, with those around it.")
BEFORE = Param("before", ParamKind.INTEGER, "The number of the line before which the lines end.")
_LINE = Param("line", ParamKind.INTEGER, "Where to look from: the number of a line, 0 for the log's beginning or end.")
_BACK = Param("back", ParamKind.FLAG, "Look towards the beginning.")
_WANTED = Param("text", ParamKind.TEXT, "Look for this, whatever the case of its letters, not for errors.")
_TEXT = Param("text", ParamKind.TEXT, "What the lines have, whatever the case of its letters.", required=True)
_COUNT = Param("count", ParamKind.INTEGER, f"The most lines: {WINDOW} when missing, {_MAX_WINDOW} at most.")
_SKIP = Param("skip", ParamKind.INTEGER, "How many lines are left out at the beginning.")


TIMES = Param("times", ParamKind.FLAG, "Tell when each line was written.")


class LogPages(PageArea):
    """Handlers of logs."""

    @shows(f"{TASK}/log/rows", STEP, FROM, AT, BEFORE, _COUNT, TIMES, waits=True)
    @for_people
    def rows(self, call: Call) -> Response:
        """Show some lines of a log, for the script: the rows alone."""
        count = call.integer("count", WINDOW)
        if not 0 < count <= _MAX_WINDOW:
            raise BadRequestError(f"count must be from 1 to {_MAX_WINDOW}")
        with self._view(call) as view:
            pieces = asked_pieces(call, view, count, _ROWS_BYTES)
            shown = shown_lines(pieces, view, _log_address(call), asked_times(self._state, call, call.text("step")))
            response = page("log_rows.html", shown)
        response.headers["X-Total"] = str(view.index.lines)
        return response

    @shows(f"{TASK}/log/next", STEP, _LINE, _BACK, _WANTED, TIMES, PART, waits=True)
    @for_people
    def next(self, call: Call) -> Response:
        """Lead to the next line, or back to the last one, that looks like an error or has a text.

        The script gets its number alone: "" for none.
        """
        line, text = call.integer("line", 0), call.text("text").encode(errors="replace")
        if line < 0 or len(text) > _MAX_TEXT * 4:
            raise BadRequestError(f"line must be a line's number, and text have at most {_MAX_TEXT} characters")
        with self._view(call) as view:
            total = view.index.lines
            if call.flag("back"):
                until = min(line - 1, total) if line else total
                found = view.previous_text(text, until) if text else view.previous_error(until)
            else:
                start = min(line, total)
                found = view.next_text(text, start) if text else view.next_error(start)
            errors = told_errors(*view.known_errors())
        if call.flag("part"):
            headers = {"X-Total": str(total), "X-Errors": errors, "Cache-Control": "no-cache"}
            return Response("" if found is None else str(found + 1), 200, headers, media_type="text/plain")
        seen = f"&at={found + 1}#L{found + 1}" if found is not None else f"&at={max(1, line)}&missing"
        return redirect(_log_address(call) + seen)

    @shows(f"{TASK}/log/errors", STEP, waits=True)
    @for_people
    def errors(self, call: Call) -> Response:
        """Count the lines that look like errors, for the script: of a long log some MiB: the next answer goes on."""
        with self._view(call) as view:
            told = told_errors(*view.count_errors())
            counted = sum(errors != NOT_COUNTED for errors in view.errors)
        headers = {"X-Counted": str(counted), "Cache-Control": "no-cache"}
        return Response(told, 200, headers, media_type="text/plain")

    def _view(self, call: Call) -> AbstractContextManager[LogView]:
        return viewed(self._state, call, call.path_params["task_id"], call.text("step"))

    @shows(f"{TASK}/log/follow", STEP, _SKIP, TIMES, waits=True, in_maintenance=False)
    @for_people
    def follow(self, call: Call) -> Response:
        """Stream the rows of a log while it grows, for the script (see `growing.growing`)."""
        number, skip = step_number(call.text("step")), call.integer("skip", 0)
        pieces = self._state.service.open_log(
            call.path_params["run_id"], call.path_params["task_id"], number, follow=True
        )
        return stream_answer(growing(pieces, skip, asked_times(self._state, call, call.text("step"))), HTML)

    @shows(f"{TASK}/log/find", STEP, _TEXT, TIMES, waits=True)
    @for_people
    def find(self, call: Call) -> Response:
        """Show the lines of a log that have a text."""
        text, key = call.text("text"), call.text("step")
        if not 0 < len(text) <= _MAX_TEXT:
            raise BadRequestError(f"text must have from 1 to {_MAX_TEXT} characters")
        bundle, task = self._task(call)
        with viewed(self._state, call, task.id, key) as view:
            lines, complete = view.find(text.encode(errors="replace"), _MOST_FOUND)
        address = _log_address(call)
        shown = [html(row, f"{address}&at={row.number}") for line, data in lines for row in rows([data], line + 1)]
        return self._page(
            call,
            "log_found.html",
            "runs",
            run=view_run(bundle.run, datetime.now(UTC)),
            task=task,
            step=task.step(key),
            text=text,
            rows=shown,
            complete=complete,
            times=call.flag("times"),
            page_url=log_path(bundle.run.id, task.id),
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


@contextmanager
def viewed(state: State, call: Call, task_id: str, key: str) -> Iterator[LogView]:
    """Open a log of the run that a request names.

    Raises:
        NotFoundError: There is no such log.
    """
    run_id, step = call.path_params["run_id"], step_number(key)
    with state.backend.gate.enter() as service, service.log_view(run_id, task_id, step, call.context) as view:
        yield view


def asked_times(state: State, call: Call, key: str, task_id: str = "") -> GrowingTimes | None:
    """Return when the lines of a log were written, if a request asks for it.

    Args:
        state: Has the service.
        call: The request.
        key: The step.
        task_id: The task; "" for that of the path.

    Raises:
        NotFoundError: There is no such step.
    """
    if not call.flag("times"):
        return None
    task_id = task_id or call.path_params["task_id"]
    return state.service.log_times(call.path_params["run_id"], task_id, step_number(key))


def asked_pieces(call: Call, view: LogView, count: int, size: int) -> list[Piece]:
    """Return what a request asks for of a log: lines from one on, before one or around one, else the last ones.

    Args:
        call: The request.
        view: The log.
        count: The most lines.
        size: About the most bytes of a page.

    Raises:
        BadRequestError: It names no line.
    """
    for name in ("at", "from", "before"):
        if name in call.query_params:
            line = call.integer(name)
            if line < 1:
                raise BadRequestError(f"{name} must be a line's number, from 1")
            if name == "at":
                return view.around(line - 1, count, size)
            return view.window(line - 1, count, size) if name == "from" else view.before(line - 1, count, size)
    return view.before(view.index.lines, count, size)


def shown_lines(
    pieces: list[Piece], view: LogView, address: str, times: GrowingTimes | None = None
) -> dict[str, object]:
    """Return what a template shows of a part of a log.

    Args:
        pieces: The part.
        view: The log.
        address: Its own, to which a line's number can be added.
        times: When its lines were written, where that is shown.
    """
    last = 0
    if times is not None:
        times.reach(view.index.size)
    if pieces:
        end = pieces[-1]
        last = end.group.end if end.group and not end.lines else end.first + len(end.lines)
    return {
        "rows": list(window_html(pieces, address, times.at if times else None)),
        "untimed": times is not None and not times.times.size,
        "first": pieces[0].first + 1 if pieces else 0,
        "last": last,
        "total": view.index.lines,
        "errors": told_errors(*(view.count_errors() if view.index.size <= _COUNTED_AT_ONCE else view.known_errors())),
    }


def told_errors(errors: int, is_exact: bool) -> str:
    """Return how many lines look like errors, in words; `+` tells that not all lines were looked at yet."""
    return f"{errors:,}{'' if is_exact else '+'}"


def _log_address(call: Call) -> str:
    path = log_path(call.path_params["run_id"], call.path_params["task_id"])
    return f"{path}?step={quote(call.text('step'))}{'&times=on' if call.flag('times') else ''}"
