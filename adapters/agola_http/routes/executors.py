"""What executors report and ask: their registration, their tasks, and the tasks' status."""

from __future__ import annotations

from starlette.responses import Response

from agola_core.errors import BadRequestError, ForbiddenError, NotFoundError
from agola_core.runservice.model.types import Executor, ExecutorTask
from agola_core.runservice.scheduling.executor_reports import ExecutorSide
from agola_http.access.control import check_own, check_token
from agola_http.access.principals import Principal
from agola_http.protocol.names import EXECUTOR_HEADER, PREFIX
from agola_http.server.endpoints import Call, Endpoint, json_answer
from agola_http.server.state import State

_TAG = "executors"


class Executors:
    """The handlers.

    Args:
        state: What they work on.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    @property
    def _side(self) -> ExecutorSide:
        return self._state.service.executor_side

    def endpoints(self) -> list[Endpoint]:
        """Return the rows of this area."""
        executor = Principal.EXECUTOR
        one = f"{PREFIX}/executor/{{executor_id}}"
        return [
            Endpoint(
                "POST", one, self.report, executor, "Register an executor, or tell that it lives.", _TAG, body=Executor
            ),
            Endpoint("DELETE", one, self.leave, executor, "Forget an executor that leaves.", _TAG),
            Endpoint(
                "GET", f"{one}/tasks", self.tasks, executor, "List all tasks of an executor.", _TAG,
                answer=list[ExecutorTask],
            ),
            Endpoint(
                "GET", f"{one}/tasks/{{task_id}}", self.task, executor, "Return a task of an executor.", _TAG,
                answer=ExecutorTask, errors=(404,),
            ),
            Endpoint(
                "POST", f"{one}/tasks/{{task_id}}", self.report_task, executor, "Report the status of a task.", _TAG,
                body=ExecutorTask,
            ),
            Endpoint(
                "GET", f"{PREFIX}/executors", self.list_executors, Principal.CLIENT, "List the executors.", _TAG,
                answer=list[Executor],
            ),
            Endpoint(
                "DELETE", f"{PREFIX}/executors/{{executor_id}}", self.delete_executor, Principal.ADMIN,
                "Forget an executor: its unfinished tasks fail, or are tried elsewhere.", _TAG,
            ),
        ]  # fmt: skip

    def report(self, call: Call) -> Response:
        """Note an executor's report."""
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

    def leave(self, call: Call) -> Response:
        """Forget an executor that says so itself."""
        executor_id = self._own(call, call.path_params["executor_id"])
        self._state.service.delete_executor(executor_id)
        return Response()

    def delete_executor(self, call: Call) -> Response:
        """Forget an executor that an admin names."""
        self._state.service.delete_executor(call.path_params["executor_id"])
        return Response()

    def tasks(self, call: Call) -> Response:
        """Return every task that is held for an executor, finished ones included."""
        executor_id = self._own(call, call.path_params["executor_id"])
        return json_answer(self._side.tasks(executor_id), newline=True)

    def task(self, call: Call) -> Response:
        """Return a task; one that another executor holds is not found, so that its data there can go."""
        executor_id, task_id = self._own(call, call.path_params["executor_id"]), call.path_params["task_id"]
        task = self._side.task(task_id)
        if task.status.executor_id != executor_id:
            raise NotFoundError(f"task {task_id!r} is not executor {executor_id!r}'s")
        return json_answer(task, newline=True)

    def report_task(self, call: Call) -> Response:
        """Take a task's status from its executor."""
        task = call.record(ExecutorTask)
        executor_id = self._own(call, task.status.executor_id)
        self._side.take_task_status(executor_id, task)
        return Response()

    def list_executors(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Return the executors that have reported themselves."""
        return json_answer(self._state.service.executors())

    def _own(self, call: Call, named: str) -> str:
        """Return the executor that a call is about, which the caller speaks for.

        Args:
            call: The request.
            named: The executor that it names, in its path or its body.

        Raises:
            ForbiddenError: The caller may not speak for that executor, or did not show its own token.
        """
        executor_id = check_own(call.caller, call.path_params["executor_id"], named)
        shown = call.headers.get(EXECUTOR_HEADER, "")
        if call.caller.executor_id != executor_id and not self._side.is_token_of(executor_id, shown):
            raise ForbiddenError(f"the token of executor {executor_id[:80]!r} itself is needed")
        return executor_id
