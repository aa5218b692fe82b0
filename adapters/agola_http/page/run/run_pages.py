"""The page of a run: its tasks, and beside them the chosen step's log, the graph or the timeline."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from urllib.parse import quote, urlencode

import msgspec
from starlette.responses import Response

from agola_core.errors import BadRequestError, NotFoundError
from agola_core.runservice.model.reports import RunTests
from agola_core.runservice.model.requests import RunBundle
from agola_core.runservice.model.types import FetchPhase
from agola_core.runservice.service import RunService
from agola_http.page.area import AWAY, PART, RUN, TASK, PageArea, for_people, shows, tell_away
from agola_http.page.log.log_pages import (
    AT,
    BEFORE,
    FROM,
    STEP,
    TIMES,
    WINDOW,
    WINDOW_BYTES,
    asked_pieces,
    asked_times,
    log_path,
    shown_lines,
    step_number,
    viewed,
)
from agola_http.page.render import part
from agola_http.page.run import graph
from agola_http.page.run.results import ResultsView, view_results
from agola_http.page.run.task_list import TaskFold, choose, choose_step, folds
from agola_http.page.run.timeline import timeline
from agola_http.page.views import SETUP, StepView, TaskView, unnamed_config, view_run, view_tasks
from agola_http.protocol.names import PREFIX
from agola_http.server.application import RETRY_SECONDS
from agola_http.server.endpoints import Call, Param, ParamKind

_VIEWS = ("", "graph", "timeline", "results")
_MAX_TEXT, _MAX_FOLDS = 200, 100
_VIEW = Param("view", ParamKind.TEXT, "graph, timeline or results; without it a log is shown.")
_TASK = Param("task", ParamKind.TEXT, "The id of the task that is shown.")
_AUTO = Param("auto", ParamKind.TEXT, "Nobody chose the task, or the step: tell when another one is to be looked at.")
_STEP = replace(STEP, required=False)
_TEXT = Param("q", ParamKind.TEXT, "What the names of the listed tasks have.")
_MISSING = Param("missing", ParamKind.FLAG, "Tell that no other line was found.")
_FOLD = Param("fold", ParamKind.TEXT, "The folds of tasks that are open, their ids divided by commas.")


class Chosen(msgspec.Struct, frozen=True):
    """What stands beside the tasks.

    Attributes:
        view: "" for a log, else which drawing.
        task: Whose log; None for none.
        step: Which step's; None for none.
        auto: What nobody chose: "task", "step", or "" where both were chosen.
    """

    view: str
    task: TaskView | None
    step: StepView | None
    auto: str

    @property
    def log(self) -> str:
        """The name of the log that is shown."""
        return f"{self.task.id}/{self.step.key}" if self.task and self.step else ""

    @property
    def query(self) -> dict[str, str]:
        """What of an address keeps to what the reader chose."""
        if self.view or self.task is None or self.auto == "task":
            return {"view": self.view} if self.view else {}
        return {"task": self.task.id, **({"step": self.step.key} if self.step and not self.auto else {})}


class RunPages(PageArea):
    """Handlers of the page of a run."""

    @shows(RUN, _VIEW, _TASK, _STEP, TIMES, _TEXT, _FOLD, _AUTO, PART)
    @for_people
    def run(self, call: Call) -> Response:
        """Show a run: what failed, or the chosen view."""
        return self._screen(call, call.text("task"))

    @shows(f"{TASK}/log", _STEP, FROM, AT, BEFORE, _MISSING, TIMES, _TEXT, _FOLD, waits=True)
    @for_people
    def log(self, call: Call) -> Response:
        """Show a run with a step's log, at first its end; a log that grows is left to the script."""
        return self._screen(call, call.path_params["task_id"])

    def _screen(self, call: Call, task_id: str) -> Response:
        with self._state.backend.gate.enter() as service:
            bundle, is_whole = self._bundle(service, call.path_params["run_id"])
            before = service.known_run(bundle.run.restarted_from) if bundle.run.restarted_from else None
            results = self._results(service, bundle, is_whole=is_whole)
        now, text = datetime.now(UTC), call.text("q")[:_MAX_TEXT].strip()
        run, tasks = view_run(bundle.run, now), view_tasks(bundle, now)
        chosen = _chosen(call, tasks, task_id)
        address = f"/page/runs/{quote(run.id)}"
        opened = [name for name in call.text("fold").split(",")[:_MAX_FOLDS] if name.isalnum()]
        times = "on" if call.flag("times") else ""
        asked = {name: value for name, value in (("q", text), ("fold", ",".join(opened)), ("times", times)) if value}
        task_folds = folds(tasks, text, chosen.task.id if chosen.task else "", opened)
        values: dict[str, object] = {
            "run": run,
            "is_whole": is_whole,
            "before": view_run(before, now) if before else None,
            "setup_errors": bundle.run_config.setup_errors,
            "results": results,
            "folds": task_folds,
            "fold_url": _fold_url(address, {**chosen.query, **asked}),
            "task_count": len(tasks),
            "text": text,
            "chosen": chosen,
            "proposed": _proposed(chosen, tasks),
            "address": address,
            "more": "&" + urlencode(asked) if asked else "",
            "tasks_by_id": {task.id: task for task in tasks},
        }
        values |= _drawing(chosen.view, bundle, folds(tasks, "", "", opened), now)
        if call.flag("part"):
            return part(call, "run_detail.html", values, finished=run.is_finished)
        live = {"view": chosen.view, "task": chosen.task.id if chosen.task else "", **asked}
        if chosen.step:
            live["step"] = chosen.step.key
        live_url = f"{address}?" + urlencode({**live, "auto": chosen.auto, "part": ""})
        values |= self._log(call, bundle, chosen, is_whole=is_whole)
        return self._page(call, "run.html", "runs", live_url=live_url, **values)

    def _bundle(self, service: RunService, run_id: str) -> tuple[RunBundle, bool]:
        """Return a run, and whether its configuration is known: while storage is away there may be its state alone.

        Raises:
            NotFoundError: There is no such run.
        """
        try:
            return self._state.patient.call(partial(service.get_run, run_id)), True
        except AWAY as error:
            known = service.known_run(run_id)
            if known is None:
                raise
            tell_away(f"the configuration of run {run_id}", error)
            return RunBundle(known, unnamed_config(known)), False

    def _log(self, call: Call, bundle: RunBundle, chosen: Chosen, *, is_whole: bool) -> dict[str, object]:
        """Return what is shown of the chosen step's log."""
        task, step = chosen.task, chosen.step
        if chosen.view or task is None or step is None or not step.has_log:
            return {"raw_url": "", "away": 0 if is_whole else RETRY_SECONDS}
        number = step_number(step.key)
        status = bundle.run.tasks[task.id]
        state = status.setup_step if number is None else status.steps[number]
        stored = state.log_phase is FetchPhase.FINISHED
        which = {SETUP: ""} if number is None else {"step": number}
        times = {"timestamps": ""} if call.flag("times") else {}
        raw = urlencode({"runid": bundle.run.id, "taskid": task.id, **which, **times})
        address, is_asked = log_path(bundle.run.id, task.id), bool({"at", "from", "before"} & set(call.query_params))
        shown: dict[str, object] = {"rows": [], "first": 0, "last": 0, "total": 0, "errors": "", "untimed": False}
        follow, away = not stored and not is_asked, not is_whole
        if is_whole and not follow and not state.log_lost:
            try:
                shown = self._state.patient.call(partial(self._shown, call, task.id, step.key, address))
            except AWAY as error:
                away = True
                tell_away(f"the log of task {task.id}", error)
        return {
            "raw_url": f"{PREFIX}/logs?{raw}",
            "page_url": address,
            "follow": follow,
            "stored": stored,
            "missing": call.flag("missing"),
            "times": bool(times),
            "place": _place(call),
            "lost": state.log_lost,
            "away": RETRY_SECONDS if away else 0,
            "at_end": shown["last"] == shown["total"] and not is_asked,
            **shown,
        }

    def _shown(self, call: Call, task_id: str, key: str, address: str) -> dict[str, object]:
        with viewed(self._state, call, task_id, key) as view:
            stamps = asked_times(self._state, call, key, task_id)
            own = f"{address}?step={key}{'&times=on' if stamps else ''}"
            return shown_lines(asked_pieces(call, view, WINDOW, WINDOW_BYTES), view, own, stamps)

    def _results(self, service: RunService, bundle: RunBundle, *, is_whole: bool) -> ResultsView:
        """Return what the tasks reported and saved, as far as storage tells."""
        if not any(task.reports for task in bundle.run.tasks.values()):
            return view_results(bundle, RunTests())
        if is_whole:
            try:
                return view_results(bundle, self._state.patient.call(partial(service.run_tests, bundle)))
            except AWAY as error:
                tell_away(f"what the tasks of run {bundle.run.id} reported", error)
        problem = "storage cannot be read now: what the tasks reported is not known"
        return msgspec.structs.replace(view_results(bundle, RunTests()), problems=(problem,))


def _place(call: Call) -> str:
    """Return what of an address names the lines that are shown."""
    named = {name: call.integer(name) for name in ("at", "from", "before") if name in call.query_params}
    return f"&{urlencode(named)}" if named else ""


def _chosen(call: Call, tasks: list[TaskView], task_id: str) -> Chosen:
    """Return what a request chose, and what it left open chosen for it.

    Raises:
        BadRequestError: There is no such view.
        NotFoundError: There is no such task or step.
    """
    view = call.text("view")
    if view not in _VIEWS:
        raise BadRequestError("view must be graph, timeline or results, or be left out")
    task = next((task for task in tasks if task.id == task_id), None)
    if task_id and task is None:
        raise NotFoundError(f"run {call.path_params['run_id']} has no task {task_id[:80]!r}")
    auto = call.text("auto") or ("task" if task is None else "" if "step" in call.query_params else "step")
    if task is None and not view:
        task = choose(tasks)
    if task is None or "step" not in call.query_params:
        return Chosen(view, task, choose_step(task) if task else None, auto)
    return Chosen(view, task, task.step(call.text("step")), auto)


def _proposed(chosen: Chosen, tasks: list[TaskView]) -> str:
    """Return the name of the log that is looked at first now, as far as nobody chose another; "" for none."""
    task = choose(tasks) if chosen.auto == "task" else chosen.task
    step = choose_step(task) if task and chosen.auto else chosen.step
    return Chosen(chosen.view, task, step, chosen.auto).log if step and step.has_log else ""


def _drawing(view: str, bundle: RunBundle, task_folds: list[TaskFold], now: datetime) -> dict[str, object]:
    """Return what a drawing shows, with what is folded in it: what nobody opened, searched for or not."""
    closed = {task.id: fold for fold in task_folds if not fold.is_open for task in fold.tasks}
    folds_by_id = {fold.id: fold for fold in task_folds}
    if view == "graph":
        drawn = graph.layout(bundle.run_config, {name: (fold.id, fold.name) for name, fold in closed.items()})
        return {"graph": drawn, "folds_by_id": folds_by_id, "box_width": graph.WIDTH, "box_height": graph.HEIGHT}
    if view == "timeline":
        bars = timeline(bundle, now, {name: fold.id for name, fold in closed.items()})
        return {"timeline": bars, "folds_by_id": folds_by_id}
    return {}


def _fold_url(address: str, query: dict[str, str]) -> str:
    """Return the address that opens a fold beside those that are open, but for the fold's id at its end."""
    opened = query.pop("fold", "")
    return f"{address}?{urlencode({**query, 'fold': opened})}{',' if opened else ''}"
