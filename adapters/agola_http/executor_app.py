"""An executor's own HTTP interface, Agola 0.2's: tasks come in, logs and archives go out."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from agola_core.decoding import DECODE_ERRORS
from agola_core.errors import APIError, BadRequestError, ErrorKind, NotFoundError, UnauthorizedError
from agola_core.runservice.protocol import ExecutorClient
from agola_core.runservice.types import ExecutorTask
from agola_http.executor_client import OFFSET_HEADER
from agola_http.wire import PREFIX

_MAX_BODY = 16 * 1024 * 1024
_HEADERS = {"Cache-Control": "no-cache"}
_STATUS = {ErrorKind.BAD_REQUEST: 400, ErrorKind.UNAUTHORIZED: 401, ErrorKind.NOT_FOUND: 404}


class ExecutorApi:
    """The handlers.

    Args:
        executor: What they serve.
        token: Asked for as a bearer token; "" asks for none.
    """

    def __init__(self, executor: ExecutorClient, token: str = "") -> None:
        self._executor = executor
        self._token = token

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route(f"{PREFIX}/executor", self.submit, methods=["POST"]),
            Route(f"{PREFIX}/executor/logs", self.log, methods=["GET"]),
            Route(f"{PREFIX}/executor/archives", self.archive, methods=["GET"]),
            Route("/healthz", self.health, methods=["GET"]),
        ]

    async def submit(self, request: Request) -> Response:
        """Take a task, or a stop of one."""
        self._authorise(request)
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _MAX_BODY:
                raise BadRequestError(f"the task is larger than {_MAX_BODY} bytes")
        try:
            task = msgspec.json.decode(bytes(body), type=ExecutorTask)
        except DECODE_ERRORS as error:
            raise BadRequestError(f"malformed task: {error}") from error
        await run_in_threadpool(self._executor.submit, task)
        return Response()

    async def log(self, request: Request) -> Response:
        """Stream a log, and with `follow` its growth until the step has ended."""
        self._authorise(request)
        params = request.query_params
        setup, step = "setup" in params, params.get("step", "")
        if setup == bool(step):
            raise BadRequestError("logs needs either setup or step")
        number = None if setup else _number(step)
        task_id, follow, offset = _task_id(request), "follow" in params, _offset(request)
        return await _streamed(lambda: self._executor.open_log(task_id, number, follow=follow, offset=offset), offset)

    async def archive(self, request: Request) -> Response:
        """Stream an archive that a step saved to the workspace."""
        self._authorise(request)
        task_id, number, offset = _task_id(request), _number(request.query_params.get("step", "")), _offset(request)
        return await _streamed(lambda: self._executor.open_archive(task_id, number, offset=offset), offset)

    async def health(self, request: Request) -> Response:  # noqa: ARG002 - starlette's
        """Answer that the process lives."""
        return Response(b'{"status":"ok"}', media_type="application/json")

    def _authorise(self, request: Request) -> None:
        if self._token:
            given = request.headers.get("authorization", "").encode()
            if not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
                raise UnauthorizedError("a bearer token is needed")


def make_executor_app(executor: ExecutorClient, token: str = "") -> Starlette:
    """Return the application that serves an executor."""
    return Starlette(routes=ExecutorApi(executor, token).routes(), exception_handlers={APIError: _refused})


async def _streamed(start: Callable[[], Iterator[bytes]], offset: int) -> Response:
    headers = {**_HEADERS, OFFSET_HEADER: str(offset)}
    return StreamingResponse(_pieces(await run_in_threadpool(start)), headers=headers)


async def _pieces(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Read pieces in threads that are not those of the other calls: who follows a log may wait for long."""
    threads = CapacityLimiter(1)
    while True:
        piece = await run_sync(next, pieces, None, limiter=threads)
        if piece is None:
            return
        if piece:  # an empty one only lets a connection that was closed be noticed
            yield piece


def _task_id(request: Request) -> str:
    task_id = request.query_params.get("taskid", "")
    if not task_id:
        raise BadRequestError("taskid is missing")
    return task_id


def _offset(request: Request) -> int:
    return _number(request.query_params.get("offset", "0"), "offset")


def _number(text: str, name: str = "step") -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise BadRequestError(f"{name} must be a number from 0, not {text[:40]!r}")
    return int(text)


async def _refused(request: Request, error: Exception) -> Response:  # noqa: ARG001 - starlette's
    assert isinstance(error, APIError)
    status = 404 if isinstance(error, NotFoundError) else _STATUS.get(error.kind, 500)
    return PlainTextResponse(f"{error}\n", status)
