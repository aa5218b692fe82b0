"""The rows and handlers of the page."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from itertools import islice
from typing import Concatenate, ParamSpec
from urllib.parse import quote, urlencode

from starlette.responses import Response

from agola_core.errors import (
    APIError,
    BadRequestError,
    ForbiddenError,
    MaintenanceError,
    NotFoundError,
    UnauthorizedError,
)
from agola_core.runservice.model.requests import RunBundle, RunCreateRequest, RunQuery
from agola_core.runservice.model.types import RunPhase, RunResult
from agola_http.access import sessions
from agola_http.access.control import is_foreign
from agola_http.access.principals import Principal
from agola_http.page import graph
from agola_http.page.badge import badge
from agola_http.page.loglines import Beginning, log_lines
from agola_http.page.render import HTML, form, page, part, redirect, static_file
from agola_http.page.samples import Samples, plots
from agola_http.page.views import TaskView, state_of, view_run, view_tasks
from agola_http.protocol.errors import describe
from agola_http.protocol.names import FORM, PREFIX
from agola_http.server.endpoints import Call, Endpoint, Param, ParamKind
from agola_http.server.state import State

_TAG = "page"
_RUNS = 25
_SHOWN_LINES, _SHOWN_BYTES, _SHOWN_SECONDS = 5000, 1 << 20, 10.0
_RESULTS = {"success": RunResult.SUCCESS, "failed": RunResult.FAILED, "stopped": RunResult.STOPPED}
_PHASES = {item.value: item for item in RunPhase if item is not RunPhase.FINISHED}
_PART = Param("part", ParamKind.FLAG, "Only the part that changes.")

P = ParamSpec("P")


def for_people(
    handler: Callable[Concatenate[Pages, Call, P], Response],
) -> Callable[Concatenate[Pages, Call, P], Response]:
    """Make a handler ask for a token where clients need one, and show its errors as a page."""

    @wraps(handler)
    def guarded(self: Pages, call: Call, /, *args: P.args, **kwargs: P.kwargs) -> Response:
        try:
            self.admit(call)
            return handler(self, call, *args, **kwargs)
        except UnauthorizedError:
            return redirect("/page/login")
        except APIError as error:
            told = describe(error, "page")
            shown = {"area": "", "signed_in": False, "status": told.status, "message": told.message}
            return page("error.html", shown, told.status)

    return guarded


class Pages:
    """The handlers.

    Args:
        state: What they work on.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._samples = Samples(time.monotonic)

    def endpoints(self) -> list[Endpoint]:
        """Return the rows of this area."""
        public, run = Principal.PUBLIC, "/page/runs/{run_id}"
        task = f"{run}/tasks/{{task_id}}"
        start = Param("start", ParamKind.TEXT, "Only runs older than this id.")
        state = Param("state", ParamKind.TEXT, "Only runs with this result or phase.")
        group = Param("group", ParamKind.TEXT, "Only runs of this group and those below it.")
        step = Param("step", ParamKind.INTEGER, "The step's number.", required=True)

        def shown(
            path: str,
            handler: Callable[[Call], Response],
            summary: str,
            *params: Param,
            media: str = HTML,
            waits: bool = False,
        ) -> Endpoint:
            return Endpoint(
                "GET", path, handler, public, summary, _TAG,
                params=params, media_type=media, waits=waits, in_maintenance=True, documented=False,
            )  # fmt: skip

        def done(path: str, handler: Callable[[Call], Response], summary: str) -> Endpoint:
            return Endpoint(
                "POST", path, handler, public, summary, _TAG,
                upload=FORM, status=303, in_maintenance=True, documented=False,
            )  # fmt: skip

        return [
            shown("/", self.runs, "Show runs.", state, group, start, _PART),
            shown(run, self.run, "Show a run.", _PART),
            shown(f"{task}/log", self.log, "Show a log.", step, waits=True),
            shown("/page/store", self.store, "Show the store.", _PART),
            shown("/page/static/{name}", self.static, "Return a file of the page.", media="application/octet-stream"),
            shown("/badge.svg", self.badge, "Return a badge of a group's newest run.", group, media="image/svg+xml"),
            shown("/page/login", self.login, "Ask for a token."),
            done("/page/login", self.sign_in, "Take a token."),
            done("/page/logout", self.sign_out, "Forget the token."),
            done(f"{run}/stop", self.stop, "Stop a run."),
            done(f"{run}/restart", self.restart, "Restart a run."),
            done(f"{task}/approve", self.approve, "Approve a task."),
        ]

    def admit(self, call: Call) -> None:
        """Accept a caller that may do what clients may.

        Raises:
            UnauthorizedError: A token is needed.
            ForbiddenError: The request comes from a page of another site.
        """
        self._state.access.admit(Principal.CLIENT, call.headers)

    # What is shown

    @for_people
    def runs(self, call: Call) -> Response:
        """Show runs."""
        chosen, group, start = call.text("state"), call.text("group").strip(), call.text("start")
        query = RunQuery(
            phases=(_PHASES[chosen],) if chosen in _PHASES else (),
            results=(_RESULTS[chosen],) if chosen in _RESULTS else (),
            groups=(group,) if group else (),
            start=start,
            limit=_RUNS + 1,
        )
        with self._state.backend.gate.enter() as service:
            found = service.list_runs(query)
        now = datetime.now(UTC)
        asked = {name: value for name, value in (("state", chosen), ("group", group)) if value}
        values: dict[str, object] = {
            "runs": [view_run(run, now) for run in found[:_RUNS]],
            "older": "/?" + urlencode({**asked, "start": found[_RUNS - 1].id}) if len(found) > _RUNS else "",
            "filtered": bool(asked or start),
        }
        if call.flag("part"):
            return part(call, "runs_list.html", values)
        live = "/?" + urlencode({**asked, **({"start": start} if start else {}), "part": ""})
        return self._page(
            call,
            "runs.html",
            "runs",
            states=[*_RESULTS, *_PHASES],
            chosen_state=chosen,
            group=group,
            live_url=live,
            **values,
        )

    @for_people
    def run(self, call: Call) -> Response:
        """Show a run."""
        with self._state.backend.gate.enter() as service:
            bundle = service.get_run(call.path_params["run_id"])
        now = datetime.now(UTC)
        view, tasks = view_run(bundle.run, now), view_tasks(bundle, now)
        values: dict[str, object] = {
            "run": view,
            "tasks": tasks,
            "tasks_by_id": {task.id: task for task in tasks},
            "setup_errors": bundle.run_config.setup_errors,
            "graph": graph.layout(bundle.run_config) if tasks else graph.Layout(0, 0, (), ()),
            "box_width": graph.WIDTH,
            "box_height": graph.HEIGHT,
        }
        if call.flag("part"):
            return part(call, "run_detail.html", values, finished=view.is_finished)
        return self._page(call, "run.html", "runs", live_url=f"/page/runs/{quote(view.id)}?part", **values)

    @for_people
    def log(self, call: Call) -> Response:
        """Show a step's log; one that grows is left to the script."""
        number = call.integer("step")
        bundle, task = self._task(call)
        if not 0 <= number < len(task.steps):
            raise NotFoundError(f"task {task.name!r} has no step {number}")
        step = task.steps[number]
        follow = step.state == "running"
        query = urlencode({"runid": bundle.run.id, "taskid": task.id, "step": number})
        lines: list[str] = []
        cut = False
        if not follow and step.has_log:
            with self._state.backend.gate.enter() as service:
                pieces = service.open_log(bundle.run.id, task.id, number)
                shown = Beginning(pieces, _SHOWN_BYTES, _SHOWN_SECONDS)
                try:
                    lines = list(islice(log_lines(shown), _SHOWN_LINES + 1))
                finally:
                    getattr(pieces, "close", lambda: None)()
                cut = shown.cut or len(lines) > _SHOWN_LINES
        return self._page(
            call,
            "log.html",
            "runs",
            run=view_run(bundle.run, datetime.now(UTC)),
            task=task,
            step=step,
            follow=follow,
            lines=lines[:_SHOWN_LINES],
            cut=cut,
            raw_url=f"{PREFIX}/logs?{query}",
        )

    @for_people
    def store(self, call: Call) -> Response:
        """Show the store; it is shown in maintenance mode, too."""
        status = self._state.datamanager.status()
        try:
            with self._state.backend.gate.enter() as service:
                executors, maintenance = service.executor_side.executors(), False
        except MaintenanceError:
            executors, maintenance = [], True
        facts = (
            ("Store", status.store),
            ("Lineage", f"{status.lineage} (epoch {status.epoch})"),
            ("Newest WAL", status.sequence),
            ("In storage up to", status.synced),
            ("Checkpointed up to", status.checkpointed),
            ("WALs not checkpointed", f"{status.uncheckpointed_wals:,}, {status.uncheckpointed_bytes:,} bytes"),
            ("Last checkpoint", f"number {status.manifest}"),
            ("Data files", f"{status.data_files:,}, {status.data_bytes:,} bytes"),
        )
        values: dict[str, object] = {
            "plots": plots(self._samples.add(status)),
            "facts": facts,
            "instances": status.instances,
            "executors": executors,
            "maintenance": maintenance,
        }
        if call.flag("part"):
            return part(call, "store_detail.html", values)
        return self._page(call, "store.html", "store", **values)

    def static(self, call: Call) -> Response:
        """Return a file of the page."""
        return static_file(call.path_params["name"])

    @for_people
    def badge(self, call: Call) -> Response:
        """Return a badge of a group's newest run."""
        group = call.text("group")
        with self._state.backend.gate.enter() as service:
            found = service.list_runs(RunQuery(groups=(group,) if group else (), limit=1))
        state = state_of(found[0]) if found else "no runs"
        headers = {"Content-Type": "image/svg+xml", "Cache-Control": "no-cache"}
        return Response(badge(found[0].name if found else "agola", state).encode(), 200, headers)

    # Signing in

    def login(self, call: Call) -> Response:
        """Ask for a token."""
        return page("login.html", {"area": "", "signed_in": False, "wrong": call.flag("wrong")})

    def sign_in(self, call: Call) -> Response:
        """Take a token: a cookie that only this site's own pages send."""
        _check_own(call)
        session = self._state.access.sign_in(Principal.CLIENT, form(call.upload).get("token", ""))
        if session is None:
            return redirect("/page/login?wrong")
        return sessions.keep(redirect("/"), session, secure=call.secure)

    def sign_out(self, call: Call) -> Response:
        """Forget the session."""
        _check_own(call)
        return sessions.keep(redirect("/page/login"), "", secure=call.secure)

    # What is done

    @for_people
    def stop(self, call: Call) -> Response:
        """Stop a run, or cancel it before it has begun."""
        run_id = call.path_params["run_id"]
        with self._state.backend.gate.enter() as service:
            if service.get_run(run_id).run.phase is RunPhase.QUEUED:
                service.change_run_phase(run_id, RunPhase.CANCELLED)
            else:
                service.stop_run(run_id)
        return redirect(f"/page/runs/{quote(run_id)}")

    @for_people
    def restart(self, call: Call) -> Response:
        """Restart a run and show the new one."""
        start = form(call.upload).get("from")
        if start not in {"start", "failed"}:
            raise BadRequestError("restart from 'start' or from 'failed'")
        request = RunCreateRequest(run_id=call.path_params["run_id"], from_start=start == "start")
        with self._state.backend.gate.enter() as service:
            bundle = service.create_run(request)
        return redirect(f"/page/runs/{quote(bundle.run.id)}")

    @for_people
    def approve(self, call: Call) -> Response:
        """Approve a task."""
        with self._state.backend.gate.enter() as service:
            service.approve_task(call.path_params["run_id"], call.path_params["task_id"])
        return redirect(f"/page/runs/{quote(call.path_params['run_id'])}")

    def _page(self, call: Call, template: str, area: str, **values: object) -> Response:
        shown = {"area": area, "signed_in": bool(sessions.sent(call.headers)), **values}
        return page(template, shown)

    def _task(self, call: Call) -> tuple[RunBundle, TaskView]:
        with self._state.backend.gate.enter() as service:
            bundle = service.get_run(call.path_params["run_id"])
        for task in view_tasks(bundle, datetime.now(UTC)):
            if task.id == call.path_params["task_id"]:
                return bundle, task
        raise NotFoundError(f"run {bundle.run.id} has no task {call.path_params['task_id'][:80]!r}")


def _check_own(call: Call) -> None:
    """Refuse a form that a page of another site sends: it would sign its visitor in as somebody else, or out."""
    if is_foreign(call.headers):
        raise ForbiddenError("pages of another site do not sign anybody in or out here")
