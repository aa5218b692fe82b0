"""Routes for caches, workspace archives and uploaded sources."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from agola_core.errors import BadRequestError, ForbiddenError, NotFoundError
from agola_core.runservice.model.object_paths import MAX_CACHE_KEY_BYTES
from agola_core.runservice.model.types import ExecutorTask, RunStep
from agola_http.access.principals import Caller, Principal
from agola_http.protocol.names import NO_CACHE, PREFIX, TAR
from agola_http.protocol.records import Source
from agola_http.server.endpoints import Area, Call, Param, ParamKind, endpoint, json_answer, stream_answer
from agola_http.server.state import State

_PREFIX = Param("prefix", ParamKind.FLAG, "The key is only how the cache's key begins; the newest one is taken.")
_ARCHIVE = (
    Param("taskid", ParamKind.TEXT, "The task that saved it.", required=True),
    Param("step", ParamKind.INTEGER, "The number of the step that saved it.", required=True),
)


_SAVED = (Param("runid", ParamKind.TEXT, "The run.", required=True), *_ARCHIVE)
_CACHE = f"{PREFIX}/executor/caches/{{key}}"


class Caches(Area[State]):
    """Caches, workspace archives and uploaded sources."""

    tag = "caches and archives"

    @endpoint("GET", f"{PREFIX}/executor/archives", Principal.EXECUTOR, params=_ARCHIVE, media_type=TAR, errors=(404,))
    def archive(self, call: Call) -> Response:
        """Stream a workspace archive."""
        task_id, step = call.text("taskid"), call.integer("step")
        if not task_id or step < 0:
            raise BadRequestError("archives needs a taskid and a step that is not negative")
        self._check_needed(call.caller, lambda task: needs_archive(task, task_id, step))
        try:
            return stream_answer(self._state.service.artifacts.open_archive(task_id, step), TAR)
        except NotFoundError:
            raise NotFoundError("does not exist") from None  # Agola's text

    @endpoint("GET", f"{PREFIX}/archives", Principal.CLIENT, params=_SAVED, media_type=TAR, errors=(404,))
    def saved(self, call: Call) -> Response:
        """Stream the archive of the files that a step of a run saved to the workspace."""
        run_id, task_id, step = call.text("runid"), call.text("taskid"), call.integer("step")
        if not run_id or not task_id or step < 0:
            raise BadRequestError("archives needs a runid, a taskid and a step that is not negative")
        return stream_answer(self._state.service.open_archive(run_id, task_id, step), TAR)

    @endpoint("HEAD", _CACHE, Principal.EXECUTOR, params=(_PREFIX,), errors=(404,))
    def cache_exists(self, call: Call) -> Response:
        """Return whether a cache exists."""
        artifacts, key = self._state.service.artifacts, self._key(call)
        if call.flag("prefix"):
            artifacts.open_cache(key, prefix=True)
        elif not artifacts.cache_exists(key):
            raise NotFoundError(f"no cache {key!r}")
        return Response()

    @endpoint("GET", _CACHE, Principal.EXECUTOR, params=(_PREFIX,), media_type=TAR, errors=(404,))
    def cache(self, call: Call) -> Response:
        """Stream a cache."""
        key = self._key(call)
        try:
            pieces = self._state.service.artifacts.open_cache(key, prefix=call.flag("prefix"))
        except NotFoundError:
            raise NotFoundError(f"no cache {key!r}") from None  # where it would lie is nobody's business
        return stream_answer(pieces, TAR)

    @endpoint("POST", _CACHE, Principal.EXECUTOR, upload=TAR, errors=(304,))
    def put_cache(self, call: Call) -> Response:
        """Store a cache unless its key exists (304)."""
        stored = self._state.service.artifacts.put_cache(self._key(call), call.upload, call.content_length)
        return Response(status_code=200 if stored else 304, headers=NO_CACHE)

    @endpoint("GET", f"{PREFIX}/executor/sources/{{source_id}}", Principal.EXECUTOR, media_type=TAR, errors=(404,))
    def source(self, call: Call) -> Response:
        """Stream a source archive."""
        source_id = call.path_params["source_id"]
        self._check_needed(call.caller, lambda task: needs_source(task, source_id))
        try:
            return stream_answer(self._state.service.artifacts.open_source(source_id), TAR)
        except NotFoundError:
            raise NotFoundError(f"source {source_id!r} does not exist") from None

    @endpoint("POST", f"{PREFIX}/sources", Principal.CLIENT, upload=TAR, answer=Source, status=201)
    def put_source(self, call: Call) -> Response:
        """Store a source archive for later runs."""
        return json_answer(Source(self._state.service.put_source(call.upload)), 201)

    def _key(self, call: Call) -> str:
        key: str = call.path_params["key"]
        if len(key.encode(errors="surrogateescape")) > MAX_CACHE_KEY_BYTES:
            raise BadRequestError("cache key too long")
        self._check_needed(call.caller, lambda task: key.startswith(f"{task.cache_prefix}-"))
        return key

    def _check_needed(self, caller: Caller, needs: Callable[[ExecutorTask], bool]) -> None:
        """Refuse what no task of the caller needs, if its token is bound to one executor."""
        if caller.executor_id is not None:
            tasks = self._state.service.executor_side.tasks(caller.executor_id)
            if not any(needs(task) for task in tasks):
                raise ForbiddenError(f"no task of executor {caller.executor_id!r} needs this")


def needs_archive(task: ExecutorTask, task_id: str, step: int) -> bool:
    """Return whether a task restores a workspace archive."""
    return any((operation.task_id, operation.step) == (task_id, step) for operation in task.workspace_operations)


def needs_source(task: ExecutorTask, source_id: str) -> bool:
    """Return whether a task unpacks a source archive."""
    return any(isinstance(step, RunStep) and step.source == source_id for step in task.steps)
