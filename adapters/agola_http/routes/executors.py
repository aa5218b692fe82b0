"""Routes for executors: registration, their tasks, and the status of tasks."""

from __future__ import annotations

from starlette.responses import Response

from agola_core.errors import BadRequestError, ForbiddenError, NotFoundError
from agola_core.runservice.model.types import Executor, ExecutorTask
from agola_core.runservice.scheduling.executor_reports import ExecutorSide
from agola_http.access.control import check_own, check_token
from agola_http.access.principals import Principal
from agola_http.protocol.names import EXECUTOR_HEADER, PREFIX
from agola_http.server.endpoints import Area, Call, endpoint, json_answer
from agola_http.server.state import State

_ONE = f"{PREFIX}/executor/{{executor_id}}"


class Executors(Area[State]):
    """Routes for executors."""

    tag = "executors"

    @property
    def _side(self) -> ExecutorSide:
        return self._state.service.executor_side

    @endpoint("POST", _ONE, Principal.EXECUTOR, body=Executor)
    def report(self, call: Call) -> Response:
        """Register an executor, or report that it is alive."""
        executor = call.record(Executor)
        check_own(call.caller, call.path_params["executor_id"], executor.id)
        if not executor.id:
            raise BadRequestError("the executor has no id")
        if executor.listen_url:
            self._state.listen_policy.check(executor.listen_url, same_machine=call.same_machine)
        if executor.listen_token:
            check_token(executor.listen_token, Principal.EXECUTOR)
        proven = call.caller.executor_id == executor.id
        self._side.take_executor_status(executor, proven=proven)
        return Response()

    @endpoint("DELETE", _ONE, Principal.EXECUTOR)
    def leave(self, call: Call) -> Response:
        """Remove an executor that leaves."""
        executor_id = self._own(call, call.path_params["executor_id"])
        self._state.service.delete_executor(executor_id)
        return Response()

    @endpoint("DELETE", f"{PREFIX}/executors/{{executor_id}}", Principal.ADMIN)
    def delete_executor(self, call: Call) -> Response:
        """Remove an executor: its unfinished tasks fail, or are retried on another one."""
        self._state.service.delete_executor(call.path_params["executor_id"])
        return Response()

    @endpoint("GET", f"{_ONE}/tasks", Principal.EXECUTOR, answer=list[ExecutorTask])
    def tasks(self, call: Call) -> Response:
        """List all tasks of an executor, finished ones included."""
        executor_id = self._own(call, call.path_params["executor_id"])
        return json_answer(self._side.tasks(executor_id), newline=True)

    @endpoint("GET", f"{_ONE}/tasks/{{task_id}}", Principal.EXECUTOR, answer=ExecutorTask, errors=(404,))
    def task(self, call: Call) -> Response:
        """Return a task of an executor.

        A task that another executor holds is not found, so that this one deletes its data.
        """
        executor_id, task_id = self._own(call, call.path_params["executor_id"]), call.path_params["task_id"]
        task = self._side.task(task_id)
        if task.status.executor_id != executor_id:
            raise NotFoundError(f"task {task_id!r} is not executor {executor_id!r}'s")
        return json_answer(task, newline=True)

    @endpoint("POST", f"{_ONE}/tasks/{{task_id}}", Principal.EXECUTOR, body=ExecutorTask)
    def report_task(self, call: Call) -> Response:
        """Report the status of a task."""
        task = call.record(ExecutorTask)
        executor_id = self._own(call, task.status.executor_id)
        self._side.take_task_status(executor_id, task)
        return Response()

    @endpoint("GET", f"{PREFIX}/executors", Principal.CLIENT, answer=list[Executor])
    def list_executors(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """List the executors."""
        return json_answer(self._state.service.executors())

    def _own(self, call: Call, named: str) -> str:
        """Return the executor that a call is about, if the caller may act for it.

        Args:
            call: The request.
            named: The executor that it names, in its path or its body.

        Raises:
            ForbiddenError: The caller may not act for that executor, or did not send its token.
        """
        executor_id = check_own(call.caller, call.path_params["executor_id"], named)
        shown = call.headers.get(EXECUTOR_HEADER, "")
        if call.caller.executor_id != executor_id and not self._side.is_token_of(executor_id, shown):
            raise ForbiddenError(f"the token of executor {executor_id[:80]!r} itself is needed")
        return executor_id
