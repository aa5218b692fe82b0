"""The pages of lists: runs, and groups with their last runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import urlencode

import msgspec
from starlette.responses import Response

from agola_core.errors import NotFoundError
from agola_core.runservice.model.requests import RunQuery
from agola_core.runservice.model.types import Run, RunConfig, RunPhase, RunResult
from agola_core.runservice.service import RunService
from agola_http.page.area import GROUP, PART, PageArea, for_people, shows
from agola_http.page.lists.history import BAR_HEIGHT, BAR_WIDTH, by_group, group_history, task_histories
from agola_http.page.render import part
from agola_http.page.views import WAITING, branch_of, commit_message, started_by, state_of, view_run
from agola_http.server.endpoints import Call, Param, ParamKind

_RUNS, _LOOKED_AT = 25, 1000
_HISTORY, _GROUP_RUNS = 30, 300
_MAX_TEXT = 200
_RESULTS = {"success": RunResult.SUCCESS, "failed": RunResult.FAILED, "stopped": RunResult.STOPPED}
_PHASES = {item.value: item for item in RunPhase if item is not RunPhase.FINISHED}
_START = Param("start", ParamKind.TEXT, "Only runs older than this id.")
_STATE = Param("state", ParamKind.TEXT, "Only runs with this result or phase, or that wait for approval.")
_BRANCH = Param("branch", ParamKind.TEXT, "Only runs of this branch.")
_USER = Param("user", ParamKind.TEXT, "Only runs that this one started, whatever the case of its letters.")
_EVENT = Param("event", ParamKind.TEXT, "Only runs that this made begin: push, tag, pull_request, manual.")
_EVENTS = ("push", "tag", "pull_request", "manual")
_TEXT = Param("text", ParamKind.TEXT, "Only runs with this in name, commit, message or who started them.")


class _Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    """The filters of a list, by the names of their parameters."""

    state: str = ""
    group: str = ""
    branch: str = ""
    user: str = ""
    event: str = ""
    text: str = ""


class ListPages(PageArea):
    """Handlers of lists."""

    @shows("/", _STATE, GROUP, _BRANCH, _USER, _EVENT, _TEXT, _START, PART)
    @for_people
    def runs(self, call: Call) -> Response:
        """Show runs, and the history of a group that is asked for."""
        asked = _Asked(*(call.text(name).strip()[:_MAX_TEXT] for name in _Asked.__struct_fields__))
        start, now = call.text("start"), datetime.now(UTC)
        filters = msgspec.to_builtins(asked)
        with self._state.backend.gate.enter() as service:
            found, older = _find(service, asked, start)
        values: dict[str, object] = {
            "runs": [view_run(run, now) for run in found],
            "older": "/?" + urlencode({**filters, "start": older}) if older else "",
            "filtered": bool(filters or start),
        }
        if call.flag("part"):
            return part(call, "runs_list.html", values)
        live = "/?" + urlencode({**filters, **({"start": start} if start else {}), "part": ""})
        states = [*_RESULTS, *_PHASES, WAITING]
        events = [*_EVENTS, *({asked.event} - {"", *_EVENTS})]
        values |= {
            "states": states,
            "events": events,
            "asked": asked,
            "live_url": live,
            **self._history(asked.group, now),
        }
        return self._page(call, "runs.html", "runs", **values)

    @shows("/page/groups", GROUP)
    @for_people
    def groups(self, call: Call) -> Response:
        """Show the groups of the newest runs, each with its last ones."""
        group, now = call.text("group").strip(), datetime.now(UTC)
        with self._state.backend.gate.enter() as service:
            runs = service.list_runs(RunQuery(groups=(group,) if group else (), limit=_GROUP_RUNS))
        found = [group_history(name, items[:_HISTORY], now) for name, items in by_group(runs).items()]
        return self._page(call, "groups.html", "groups", histories=found, looked_at=_GROUP_RUNS, **_BARS)

    def _history(self, group: str, now: datetime) -> dict[str, object]:
        if not group:
            return {"history": None}
        with self._state.backend.gate.enter() as service:
            runs = service.list_runs(RunQuery(groups=(group,), limit=_HISTORY))
            slowest, unsteady = task_histories(list(_with_configs(service, runs)))
        history = group_history(group, runs, now) if runs else None
        return {"history": history, "slowest": slowest, "unsteady": unsteady, **_BARS}


def _with_configs(service: RunService, runs: list[Run]) -> Iterator[tuple[Run, RunConfig]]:
    for run in runs:
        with suppress(NotFoundError):  # deleted meanwhile
            yield run, service.run_config(run.id)


_BARS = {"bar_width": BAR_WIDTH, "bar_height": BAR_HEIGHT}


def _find(service: RunService, asked: _Asked, start: str) -> tuple[list[Run], str]:
    """Return the runs of a list, and where the older ones begin: "" for none.

    What the store's own index does not tell is picked from the newest runs.
    """
    phase = RunPhase.RUNNING if asked.state == WAITING else _PHASES.get(asked.state)
    picks = phase is RunPhase.RUNNING or bool(asked.branch or asked.user or asked.text)
    query = RunQuery(
        phases=(phase,) if phase else (),
        results=(_RESULTS[asked.state],) if asked.state in _RESULTS else (),
        groups=(asked.group,) if asked.group else (),
        events=(asked.event,) if asked.event else (),
        start=start,
        limit=_LOOKED_AT if picks else _RUNS + 1,
    )
    found = service.list_runs(query)
    picked = [run for run in found if _is_asked(run, asked)] if picks else found
    if len(picked) > _RUNS:
        return picked[:_RUNS], picked[_RUNS - 1].id
    return picked, found[-1].id if len(found) == _LOOKED_AT else ""


def _is_asked(run: Run, asked: _Asked) -> bool:
    if asked.state in {WAITING, RunPhase.RUNNING.value} and state_of(run) != asked.state:
        return False
    if asked.branch and branch_of(run) != asked.branch:
        return False
    if asked.user and started_by(run).casefold() != asked.user.casefold():
        return False
    texts = (run.name, f"#{run.counter}", run.annotations.get("commit_sha", ""), commit_message(run), started_by(run))
    return not asked.text or any(asked.text.lower() in text.lower() for text in texts)
