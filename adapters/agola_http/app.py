"""The routes under `/api/v1alpha`, with Agola 0.2's paths, parameters and JSON."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from agola_core.errors import APIError, BadRequestError, ErrorKind, NotFoundError, api_error
from agola_core.runservice.requests import (
    RunActionsRequest,
    RunActionType,
    RunBundle,
    RunCreateRequest,
    RunQuery,
    RunTaskActionsRequest,
    RunTaskActionType,
)
from agola_core.runservice.service import RunService
from agola_core.runservice.types import RunPhase, RunResult
from agola_core.standalone import Standalone
from agola_http.gate import MaintenanceGate
from agola_http.moves import Moves

logger = logging.getLogger(__name__)

PREFIX = "/api/v1alpha"
_STATUS = {
    ErrorKind.BAD_REQUEST: 400,
    ErrorKind.UNAUTHORIZED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.CONFLICT: 409,
    ErrorKind.MAINTENANCE: 503,
    ErrorKind.INTERNAL: 500,
}
_MAX_BODY = 16 * 1024 * 1024
_DEFAULT_LIMIT, _MAX_LIMIT = 25, 40
_STREAM_HEADERS = {"Cache-Control": "no-cache"}

T = TypeVar("T")


class Api:
    """The handlers.

    Args:
        standalone: What they serve.
    """

    def __init__(self, standalone: Standalone) -> None:
        self._standalone = standalone
        self._datamanager = standalone.datamanager

    @property
    def _service(self) -> RunService:
        return self._standalone.service

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route(f"{PREFIX}/runs", self.create_run, methods=["POST"]),
            Route(f"{PREFIX}/runs", self.list_runs, methods=["GET"]),
            Route(f"{PREFIX}/runs/{{run_id}}", self.get_run, methods=["GET"]),
            Route(f"{PREFIX}/runs/{{run_id}}/actions", self.run_action, methods=["PUT"]),
            Route(f"{PREFIX}/runs/{{run_id}}/tasks/{{task_id}}/actions", self.task_action, methods=["PUT"]),
            Route(f"{PREFIX}/logs", self.logs, methods=["GET"]),
            Route(f"{PREFIX}/changegroups", self.change_groups, methods=["GET"]),
            Route("/healthz", self.health, methods=["GET"]),
        ]

    async def create_run(self, request: Request) -> Response:
        """Make a run: 201 with the run and its configuration."""
        asked = decode(RunCreateRequest, await _body(request))
        bundle = await run_in_threadpool(self._service.create_run, asked)
        return _json(_bundle(bundle, ""), 201)

    async def list_runs(self, request: Request) -> Response:
        """List runs."""
        query = parse_query(request)
        runs = await run_in_threadpool(self._service.list_runs, query)
        token = await run_in_threadpool(self._token, request)
        return _json({"runs": runs, "change_groups_update_tokens": token})

    async def get_run(self, request: Request) -> Response:
        """Return a run with its configuration."""
        bundle = await run_in_threadpool(self._service.get_run, request.path_params["run_id"])
        return _json(_bundle(bundle, await run_in_threadpool(self._token, request)))

    async def run_action(self, request: Request) -> Response:
        """Start, cancel or stop a run."""
        run_id = request.path_params["run_id"]
        asked = decode(RunActionsRequest, await _body(request))
        if asked.action_type is RunActionType.STOP:
            await run_in_threadpool(self._service.stop_run, run_id)
        elif asked.phase is None:
            raise BadRequestError("changephase needs a phase")
        else:
            await run_in_threadpool(self._service.change_run_phase, run_id, asked.phase)
        return Response()

    async def task_action(self, request: Request) -> Response:
        """Approve a task, or set its annotations."""
        run_id, task_id = request.path_params["run_id"], request.path_params["task_id"]
        asked = decode(RunTaskActionsRequest, await _body(request))
        if asked.action_type is RunTaskActionType.APPROVE:
            await run_in_threadpool(self._service.approve_task, run_id, task_id)
        else:
            await run_in_threadpool(self._service.set_annotations, run_id, task_id, asked.annotations or {})
        return Response()

    async def logs(self, request: Request) -> Response:
        """Stream a log, and with `follow` its growth until the step has ended."""
        params = request.query_params
        run_id, task_id = params.get("runid", ""), params.get("taskid", "")
        setup, step = "setup" in params, params.get("step", "")
        if not run_id or not task_id or setup == bool(step):
            raise BadRequestError("logs needs runid, taskid, and either setup or step")
        number = None if setup else _integer(step, "step")
        pieces = await run_in_threadpool(
            lambda: self._service.open_log(run_id, task_id, number, follow="follow" in params)
        )
        return StreamingResponse(_stream(pieces), headers=_STREAM_HEADERS)

    async def change_groups(self, request: Request) -> Response:
        """Return the token of change groups, as a JSON string."""
        return _json(await run_in_threadpool(self._token, request))

    async def health(self, request: Request) -> Response:  # noqa: ARG002 - starlette's
        """Answer that the process lives."""
        return _json({"status": "ok"})

    def _token(self, request: Request) -> str:
        groups = request.query_params.getlist("changegroup")
        return self._datamanager.change_groups_token(groups).encode()


def make_app(standalone: Standalone) -> Starlette:
    """Return the application that serves a run service."""
    return Starlette(
        routes=[*Moves(standalone).routes(), *Api(standalone).routes()],
        middleware=[Middleware(MaintenanceGate, gate=standalone.gate)],
        exception_handlers={Exception: _on_error, APIError: _on_error},
    )


def parse_query(request: Request) -> RunQuery:
    """Return the query that a request's parameters say; unknown phases and results match nothing."""
    params = request.query_params
    limit = _integer(params["limit"], "limit") if "limit" in params else _DEFAULT_LIMIT
    if limit < 0:
        raise BadRequestError("limit must be greater or equal than 0")
    phases = params.getlist("phase")
    results = params.getlist("result")
    known_phases = tuple(RunPhase(item) for item in phases if item in set(RunPhase))
    known_results = tuple(RunResult(item) for item in results if item in set(RunResult))
    nothing = (phases and not known_phases) or (results and not known_results)
    return RunQuery(
        phases=known_phases,
        results=known_results,
        groups=tuple(params.getlist("group")),
        start=params.get("start", ""),
        limit=0 if nothing else min(limit, _MAX_LIMIT),
        ascending="asc" in params,
    )


def decode(record: type[T], data: bytes) -> T:
    """Return the record that a JSON body says.

    Raises:
        BadRequestError: It is not one.
    """
    try:
        return msgspec.json.decode(data, type=record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"malformed body: {error}") from error


def _bundle(bundle: RunBundle, token: str) -> dict[str, object]:
    return {"run": bundle.run, "run_config": bundle.run_config, "change_groups_update_tokens": token}


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_BODY:
            raise BadRequestError(f"the body is larger than {_MAX_BODY} bytes")
    return bytes(body)


def _integer(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise BadRequestError(f"{name} must be a number, not {text[:40]!r}") from error


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _stream(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in iterate_in_threadpool(pieces):
        yield piece


async def _on_error(request: Request, error: Exception) -> Response:
    """Answer with the innermost API error; anything else is generic, with an id that finds it in the log."""
    found = api_error(error)
    if found is not None and found.kind is not ErrorKind.INTERNAL:
        if not isinstance(found, NotFoundError | BadRequestError):
            logger.info("%s %s: %s", request.method, request.url.path, error)
        return _json({"message": str(found)}, _STATUS[found.kind])
    mark = uuid.uuid4().hex[:12]
    logger.error("%s %s failed: id=%s", request.method, request.url.path, mark, exc_info=error)
    return _json({"message": str(found) if found else f"internal server error (id {mark})"}, 500)
