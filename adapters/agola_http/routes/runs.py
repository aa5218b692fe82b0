"""Runs: their creation, lists and actions, and the tokens of change groups."""

from __future__ import annotations

from starlette.responses import Response

from agola_core.errors import BadRequestError
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
from agola_http.server.endpoints import Call, Endpoint, Param, ParamKind, json_answer
from agola_http.server.state import State

_TAG = "runs"
_GROUPS = Param("changegroup", ParamKind.REPEATED, "A change group of the token in the answer.")
_FILTERS = (
    Param("phase", ParamKind.REPEATED, "Only runs in one of these phases."),
    Param("result", ParamKind.REPEATED, "Only runs with one of these results."),
    Param("group", ParamKind.REPEATED, "Only runs of these groups and of those below them."),
    Param("limit", ParamKind.INTEGER, f"The most runs: {DEFAULT_LIMIT} when missing, {MAX_LIMIT} at most."),
    Param("asc", ParamKind.FLAG, "Oldest first."),
    Param("lastrun", ParamKind.FLAG, "Of each group only its newest run."),
    Param("start", ParamKind.TEXT, "Only runs after this id, in the order of the list."),
)


class Runs:
    """The handlers.

    Args:
        state: What they work on.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def endpoints(self) -> list[Endpoint]:
        """Return the rows of this area."""
        client = Principal.CLIENT
        run = f"{PREFIX}/runs/{{run_id}}"
        return [
            Endpoint(
                "GET", run, self.get_run, client, "Return a run.", _TAG,
                params=(_GROUPS,), answer=RunResponse, errors=(404,),
            ),
            Endpoint(
                "GET", f"{PREFIX}/runs", self.list_runs, client, "List runs.", _TAG,
                params=(*_FILTERS, _GROUPS), answer=GetRunsResponse,
            ),
            Endpoint(
                "POST", f"{PREFIX}/runs", self.create_run, client, "Create a run, or restart one.", _TAG,
                body=RunCreateRequest, answer=RunResponse, status=201, errors=(409,),
            ),
            Endpoint(
                "DELETE", run, self.delete_run, client, "Delete a finished run with what is its alone.", _TAG,
                errors=(404, 409),
            ),
            Endpoint(
                "PUT", f"{run}/actions", self.run_action, client, "Start, cancel or stop a run.", _TAG,
                body=RunActionsRequest, errors=(404, 409),
            ),
            Endpoint(
                "PUT", f"{run}/tasks/{{task_id}}/actions", self.task_action, client,
                "Approve a task, or set its annotations.", _TAG,
                body=RunTaskActionsRequest, errors=(404, 409),
            ),
            Endpoint(
                "GET", f"{PREFIX}/changegroups", self.change_groups, client,
                "Return the token of change groups.", _TAG, params=(_GROUPS,), answer=str,
            ),
        ]  # fmt: skip

    def get_run(self, call: Call) -> Response:
        """Return a run with its configuration; the token is older than the run, so that it never hides a change."""
        token = self._state.token(call.texts("changegroup"))
        return json_answer(_response(self._state.service.get_run(call.path_params["run_id"]), token))

    def list_runs(self, call: Call) -> Response:
        """List runs."""
        token = self._state.token(call.texts("changegroup"))
        return json_answer(GetRunsResponse(self._state.service.list_runs(parse_query(call)), token))

    def create_run(self, call: Call) -> Response:
        """Make a run."""
        bundle = self._state.service.create_run(call.record(RunCreateRequest))
        return json_answer(_response(bundle, ""), 201)

    def delete_run(self, call: Call) -> Response:
        """Delete a finished run."""
        self._state.service.delete_run(call.path_params["run_id"])
        return Response()

    def run_action(self, call: Call) -> Response:
        """Start, cancel or stop a run."""
        asked, run_id = call.record(RunActionsRequest), call.path_params["run_id"]
        token = asked.change_groups_update_tokens
        if asked.action_type is RunActionType.STOP:
            self._state.service.stop_run(run_id, token)
        else:
            self._state.service.change_run_phase(run_id, asked.new_phase, token)
        return Response()

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

    def change_groups(self, call: Call) -> Response:
        """Return the token of change groups."""
        return json_answer(self._state.token(call.texts("changegroup")))


def parse_query(call: Call) -> RunQuery:
    """Return the query that a request's parameters say; unknown phases and results match nothing."""
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
        start=call.text("start"),
        limit=0 if nothing else min(limit, MAX_LIMIT),
        ascending=call.flag("asc"),
        last_run=call.flag("lastrun"),
    )


def _response(bundle: RunBundle, token: str) -> RunResponse:
    return RunResponse(bundle.run, bundle.run_config, token)
