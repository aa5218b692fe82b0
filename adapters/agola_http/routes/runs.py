"""Routes for runs: creation, lists and actions, and the tokens of change groups."""

from __future__ import annotations

from starlette.responses import Response

from agola_core.errors import BadRequestError
from agola_core.runservice.model.reports import RunTests
from agola_core.runservice.model.requests import (
    RunActionsRequest,
    RunActionType,
    RunBundle,
    RunCreateRequest,
    RunQuery,
    RunTaskActionsRequest,
    RunTaskActionType,
)
from agola_core.runservice.model.types import RunPhase, RunResult
from agola_http.access.principals import Principal
from agola_http.protocol.names import PREFIX
from agola_http.protocol.records import DEFAULT_LIMIT, MAX_LIMIT, GetRunsResponse, RunResponse
from agola_http.server.endpoints import Area, Call, Param, ParamKind, endpoint, json_answer
from agola_http.server.state import State

_GROUPS = Param("changegroup", ParamKind.REPEATED, "A change group of the token in the answer.")
_FILTERS = (
    Param("phase", ParamKind.REPEATED, "Only runs in one of these phases."),
    Param("result", ParamKind.REPEATED, "Only runs with one of these results."),
    Param("group", ParamKind.REPEATED, "Only runs of these groups and of those below them."),
    Param("event", ParamKind.REPEATED, "Only runs that one of these made begin: push, tag, pull_request, manual."),
    Param("limit", ParamKind.INTEGER, f"The most runs: {DEFAULT_LIMIT} when missing, {MAX_LIMIT} at most."),
    Param("asc", ParamKind.FLAG, "Oldest first."),
    Param("lastrun", ParamKind.FLAG, "Of each group only its newest run."),
    Param("start", ParamKind.TEXT, "Only runs after this id, in the order of the list."),
)


_RUN = f"{PREFIX}/runs/{{run_id}}"


class Runs(Area[State]):
    """Runs."""

    tag = "runs"

    @endpoint("GET", _RUN, Principal.CLIENT, params=(_GROUPS,), answer=RunResponse, errors=(404,))
    def get_run(self, call: Call) -> Response:
        """Return a run with its configuration."""
        # The token is older than the run, so that it never hides a change.
        token = self._state.token(call.texts("changegroup"))
        return json_answer(_response(self._state.service.get_run(call.path_params["run_id"]), token))

    @endpoint("GET", f"{_RUN}/tests", Principal.CLIENT, answer=RunTests, errors=(404,))
    def run_tests(self, call: Call) -> Response:
        """Return the tests and the coverage that the tasks of a run have reported in what they saved.

        They are there once the tasks' archives are stored.
        """
        service = self._state.service
        return json_answer(service.run_tests(service.get_run(call.path_params["run_id"])))

    @endpoint("GET", f"{PREFIX}/runs", Principal.CLIENT, params=(*_FILTERS, _GROUPS), answer=GetRunsResponse)
    def list_runs(self, call: Call) -> Response:
        """List runs."""
        token = self._state.token(call.texts("changegroup"))
        return json_answer(GetRunsResponse(self._state.service.list_runs(parse_query(call)), token))

    @endpoint(
        "POST", f"{PREFIX}/runs", Principal.CLIENT, body=RunCreateRequest, answer=RunResponse, status=201, errors=(409,)
    )
    def create_run(self, call: Call) -> Response:
        """Create a run, or restart one."""
        bundle = self._state.service.create_run(call.record(RunCreateRequest))
        return json_answer(_response(bundle, ""), 201)

    @endpoint("DELETE", _RUN, Principal.CLIENT, errors=(404, 409))
    def delete_run(self, call: Call) -> Response:
        """Delete a finished run with the data that belongs to it alone."""
        self._state.service.delete_run(call.path_params["run_id"])
        return Response()

    @endpoint("PUT", f"{_RUN}/actions", Principal.CLIENT, body=RunActionsRequest, errors=(404, 409))
    def run_action(self, call: Call) -> Response:
        """Start, cancel or stop a run."""
        asked, run_id = call.record(RunActionsRequest), call.path_params["run_id"]
        token = asked.change_groups_update_tokens
        if asked.action_type is RunActionType.STOP:
            self._state.service.stop_run(run_id, token)
        else:
            self._state.service.change_run_phase(run_id, asked.new_phase, token)
        return Response()

    @endpoint(
        "PUT", f"{_RUN}/tasks/{{task_id}}/actions", Principal.CLIENT, body=RunTaskActionsRequest, errors=(404, 409)
    )
    def task_action(self, call: Call) -> Response:
        """Approve a task, or set its annotations."""
        asked = call.record(RunTaskActionsRequest)
        run_id, task_id = call.path_params["run_id"], call.path_params["task_id"]
        token = asked.change_groups_update_tokens
        if asked.action_type is RunTaskActionType.APPROVE:
            self._state.service.approve_task(run_id, task_id, token)
        else:
            self._state.service.set_annotations(run_id, task_id, asked.annotations or {}, token)
        return Response()

    @endpoint("GET", f"{PREFIX}/changegroups", Principal.CLIENT, params=(_GROUPS,), answer=str)
    def change_groups(self, call: Call) -> Response:
        """Return the token of change groups."""
        return json_answer(self._state.token(call.texts("changegroup")))


def parse_query(call: Call) -> RunQuery:
    """Return the query in a request's parameters; unknown phases and results match nothing."""
    limit = call.integer("limit", DEFAULT_LIMIT)
    if limit < 0:
        raise BadRequestError("limit must be greater or equal than 0")
    phases, results = call.texts("phase"), call.texts("result")
    known_phases = tuple(RunPhase(item) for item in phases if item in set(RunPhase))
    known_results = tuple(RunResult(item) for item in results if item in set(RunResult))
    nothing = (phases and not known_phases) or (results and not known_results)
    return RunQuery(
        phases=known_phases,
        results=known_results,
        groups=tuple(call.texts("group")),
        events=tuple(filter(None, call.texts("event"))),
        start=call.text("start"),
        limit=0 if nothing else min(limit, MAX_LIMIT),
        ascending=call.flag("asc"),
        last_run=call.flag("lastrun"),
    )


def _response(bundle: RunBundle, token: str) -> RunResponse:
    return RunResponse(bundle.run, bundle.run_config, token)
