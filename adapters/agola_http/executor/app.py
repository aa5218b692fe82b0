"""HTTP interface of an executor, as in Agola 0.2: it takes tasks and serves logs and archives.

It is the same kind of application as the run service's, with a route table of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from starlette.responses import Response

from agola_core.encoding.numerals import whole_number
from agola_core.errors import BadRequestError
from agola_core.runservice.model.protocol import ExecutorClient
from agola_core.runservice.model.types import ExecutorTask
from agola_http.access.control import Access
from agola_http.access.principals import Principal
from agola_http.protocol.names import BINARY, JSON, OFFSET_HEADER, PREFIX, TAR, TEXT
from agola_http.server.application import Application
from agola_http.server.connections.limits import Limits
from agola_http.server.endpoints import Area, Call, endpoint, stream_answer


class SizedExecutor(ExecutorClient, Protocol):
    """An executor that knows the sizes of its logs and archives."""

    def log_size(self, task_id: str, step: int | None) -> int:
        """Return the current size of a step's log, in bytes."""

    def archive_size(self, task_id: str, step: int) -> int:
        """Return the size of an archive, in bytes."""


class ExecutorApi(Area[SizedExecutor]):
    """The HTTP interface of an executor, which its run service calls."""

    tag = "executor"

    @endpoint("POST", f"{PREFIX}/executor", Principal.CLIENT, body=ExecutorTask)
    def submit(self, call: Call) -> Response:
        """Accept a task, or the request to stop one."""
        self._state.submit(call.record(ExecutorTask))
        return Response()

    @endpoint("GET", f"{PREFIX}/executor/logs", Principal.CLIENT)
    def log(self, call: Call) -> Response:
        """Stream a log, and with `follow` what is added until the step has ended."""
        task_id, number, offset = _task_id(call), _step(call), _offset(call)
        if call.flag("follow"):
            return _streamed(self._state.open_log(task_id, number, follow=True, offset=offset), TEXT, offset)
        pieces = self._state.open_log(task_id, number, follow=False, offset=offset)
        return _of_size(pieces, self._state.log_size(task_id, number), TEXT, offset)

    @endpoint("GET", f"{PREFIX}/executor/logs/times", Principal.CLIENT)
    def times(self, call: Call) -> Response:
        """Stream when the lines of a log were written."""
        offset = _offset(call)
        return _streamed(self._state.open_times(_task_id(call), _step(call), offset=offset), BINARY, offset)

    @endpoint("GET", f"{PREFIX}/executor/archives", Principal.CLIENT)
    def archive(self, call: Call) -> Response:
        """Stream an archive that a step saved to the workspace."""
        offset = _offset(call)
        task_id, step = _task_id(call), _number(call.text("step"), "step")
        pieces = self._state.open_archive(task_id, step, offset=offset)
        return _of_size(pieces, self._state.archive_size(task_id, step), TAR, offset)

    @endpoint("GET", "/healthz", Principal.PUBLIC)
    def health(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Answer that the process is alive."""
        return Response(b'{"status":"ok"}', headers={"Content-Type": JSON})


def make_executor_app(executor: SizedExecutor, access: Access, limits: Limits) -> Application:
    """Return the application that serves an executor.

    Args:
        executor: The executor.
        access: Access control; the run service takes the part of a client.
        limits: Limits of requests, connections and streams.
    """
    return Application(ExecutorApi(executor).endpoints(), access, limits)


def _streamed(pieces: Iterator[bytes], media_type: str, offset: int) -> Response:
    return stream_answer(pieces, media_type, {OFFSET_HEADER: str(offset)})


def _of_size(pieces: Iterator[bytes], size: int, media_type: str, offset: int) -> Response:
    """Return a response with a Content-Length: without it, Agola's run service stores an empty object."""
    left = max(0, size - offset)
    headers = {OFFSET_HEADER: str(offset), "Content-Length": str(left)}
    return stream_answer(_first(pieces, left), media_type, headers)


def _first(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Yield only that many bytes: a log may have grown since its size was read."""
    for piece in pieces:
        if not size:
            return
        if piece:
            yield piece[:size]
            size -= min(size, len(piece))


def _task_id(call: Call) -> str:
    task_id = call.text("taskid")
    if not task_id:
        raise BadRequestError("taskid is missing")
    return task_id


def _step(call: Call) -> int | None:
    setup, step = call.flag("setup"), call.text("step")
    if setup == bool(step):
        raise BadRequestError("logs needs either setup or step")
    return None if setup else _number(step, "step")


def _offset(call: Call) -> int:
    return _number(call.text("offset", "0"), "offset")


def _number(text: str, name: str) -> int:
    number = whole_number(text)
    if number is None:
        raise BadRequestError(f"{name} must be a number from 0, not {text[:40]!r}")
    return number
