"""The routes that move a store: maintenance mode, export and import. They answer in maintenance mode, too."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from typing import IO, cast

import anyio.from_thread
import msgspec
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from agola_core import maintenance
from agola_core.coordinator.port import Compare
from agola_core.datamanager import ExportFormat
from agola_core.errors import BadRequestError
from agola_core.standalone import Standalone

_PREFIX = "/api/v1alpha"
_JSON = "application/json"


class Moves:
    """The handlers.

    Args:
        standalone: What they serve.
    """

    def __init__(self, standalone: Standalone) -> None:
        self._datamanager = standalone.datamanager
        self._coordinator = standalone.datamanager.coordinator

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route(f"{_PREFIX}/maintenance", self.status, methods=["GET"]),
            Route(f"{_PREFIX}/maintenance", self.enable, methods=["PUT"]),
            Route(f"{_PREFIX}/maintenance", self.disable, methods=["DELETE"]),
            Route(f"{_PREFIX}/export", self.export, methods=["GET"]),
            Route(f"{_PREFIX}/import", self.import_, methods=["POST"]),
        ]

    async def status(self, request: Request) -> Response:  # noqa: ARG002 - starlette's
        """Return the mode and the states of all instances."""
        found = await run_in_threadpool(maintenance.status, self._coordinator)
        return Response(msgspec.json.encode(found), media_type=_JSON)

    async def enable(self, request: Request) -> Response:  # noqa: ARG002 - starlette's
        """Turn maintenance mode on."""
        await run_in_threadpool(maintenance.enable, self._coordinator)
        return Response(media_type=_JSON)

    async def disable(self, request: Request) -> Response:  # noqa: ARG002 - starlette's
        """Turn maintenance mode off."""
        await run_in_threadpool(maintenance.disable, self._coordinator)
        return Response(media_type=_JSON)

    async def export(self, request: Request) -> Response:
        """Stream the store; a failure breaks the connection, and a native export without its footer is no export."""
        form = _format(request)
        pieces = self._datamanager.export_stream(form)
        first = await run_in_threadpool(next, pieces, b"")  # what fails before it is an error response
        return StreamingResponse(_stream(first, pieces), headers={"Cache-Control": "no-cache"})

    async def import_(self, request: Request) -> Response:
        """Replace the content of the store by the body, or only check it with `dry_run`."""
        dry_run = "dry_run" in request.query_params
        body = cast("IO[bytes]", io.BufferedReader(_Body(request), 1 << 18))

        def work() -> None:
            self._datamanager.import_(body, dry_run=dry_run, barrier=self._barrier)

        await run_in_threadpool(work)
        return Response(media_type=_JSON)

    def _barrier(self) -> list[Compare]:
        return maintenance.barrier(self._coordinator, self._datamanager.options.instance)


class _Body(io.RawIOBase):
    """A request's body as a file, read in a worker thread."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._stream = request.stream()
        self._held = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._held:
            try:
                self._held = anyio.from_thread.run(anext, self._stream)
            except StopAsyncIteration:
                return 0
        piece, self._held = self._held[: len(buffer)], self._held[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


def _format(request: Request) -> ExportFormat:
    given = request.query_params.get("format", ExportFormat.NATIVE)
    try:
        return ExportFormat(given)
    except ValueError as error:
        raise BadRequestError(f"format must be native or agola, not {given[:40]!r}") from error


async def _stream(first: bytes, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in iterate_in_threadpool(pieces):
        yield piece
