"""Pages of the runs and of the store, and badges."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from urllib.parse import urlencode

from starlette.responses import Response

from agola_core.errors import MaintenanceError
from agola_core.runservice.model.requests import RunQuery
from agola_core.runservice.model.types import Run, RunPhase, RunResult
from agola_core.runservice.service import RunService
from agola_http.page.area import PageArea, for_people, shows
from agola_http.page.badge import badge
from agola_http.page.render import packed, part, static_file
from agola_http.page.samples import Samples, plots
from agola_http.page.views import WAITING, state_of, view_run
from agola_http.server.endpoints import Call, Param, ParamKind
from agola_http.server.state import State

_RUNS, _LOOKED_AT = 25, 1000
_RESULTS = {"success": RunResult.SUCCESS, "failed": RunResult.FAILED, "stopped": RunResult.STOPPED}
_PHASES = {item.value: item for item in RunPhase if item is not RunPhase.FINISHED}
_PART = Param("part", ParamKind.FLAG, "Only the part that changes.")
_START = Param("start", ParamKind.TEXT, "Only runs older than this id.")
_STATE = Param("state", ParamKind.TEXT, "Only runs with this result or phase, or that wait for approval.")
_GROUP = Param("group", ParamKind.TEXT, "Only runs of this group and those below it.")


class Pages(PageArea):
    """Handlers of pages.

    Args:
        state: What they work on.
    """

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._samples = Samples(time.monotonic)

    @shows("/", _STATE, _GROUP, _START, _PART)
    @for_people
    def runs(self, call: Call) -> Response:
        """Show runs."""
        chosen, group, start = call.text("state"), call.text("group").strip(), call.text("start")
        with self._state.backend.gate.enter() as service:
            found = _find(service, chosen, group, start)
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
        states = [*_RESULTS, *_PHASES, WAITING]
        return self._page(
            call, "runs.html", "runs", states=states, chosen_state=chosen, group=group, live_url=live, **values
        )

    @shows("/page/store", _PART)
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

    @shows("/page/static/{name}", media="application/octet-stream")
    def static(self, call: Call) -> Response:
        """Return a file of the page."""
        return packed(call, static_file(call.path_params["name"]))

    @shows("/badge.svg", _GROUP, media="image/svg+xml")
    @for_people
    def badge(self, call: Call) -> Response:
        """Return a badge of a group's newest run."""
        group = call.text("group")
        with self._state.backend.gate.enter() as service:
            found = service.list_runs(RunQuery(groups=(group,) if group else (), limit=1))
        state = state_of(found[0]) if found else "no runs"
        headers = {"Content-Type": "image/svg+xml", "Cache-Control": "no-cache"}
        return Response(badge(found[0].name if found else "agola", state).encode(), 200, headers)


def _find(service: RunService, state: str, group: str, start: str) -> list[Run]:
    """Return the runs of a list, and one more where there are more; waiting ones are picked from those that run."""
    phase = RunPhase.RUNNING if state == WAITING else _PHASES.get(state)
    query = RunQuery(
        phases=(phase,) if phase else (),
        results=(_RESULTS[state],) if state in _RESULTS else (),
        groups=(group,) if group else (),
        start=start,
        limit=_LOOKED_AT if phase is RunPhase.RUNNING else _RUNS + 1,
    )
    found = service.list_runs(query)
    if phase is RunPhase.RUNNING:
        found = [run for run in found if state_of(run) == state]
    return found[: _RUNS + 1]
