"""Routes for maintenance mode, export and import, which are served in maintenance mode, too."""

from __future__ import annotations

import io
import logging
from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import IO, TypeVar, cast

from starlette.responses import Response

from agola_core import maintenance
from agola_core.datamanager import Compression, ExportFormat, parse_moment
from agola_core.errors import AgolaError, BadRequestError
from agola_core.maintenance import MaintenanceStatus
from agola_core.runservice.archive import transfer
from agola_core.runservice.archive.store_history import LastExport, record_export
from agola_http.access.principals import Principal
from agola_http.protocol.names import BINARY, JSON, PREFIX
from agola_http.server.endpoints import Area, Call, Param, ParamKind, endpoint, json_answer, stream_answer
from agola_http.server.state import State

logger = logging.getLogger(__name__)

C = TypeVar("C", ExportFormat, Compression)

_BUFFER_BYTES = 1 << 18
_FORMAT = Param("format", ParamKind.TEXT, "`native` (default), or `agola` for Agola 0.2's stream.")
_PACKING = Param("packing", ParamKind.TEXT, "`none` (default), `gz` or `zst`.")
_INCLUDE = Param("include", ParamKind.TEXT, "What to add to a native stream: `logs`, `archives`, or both with a comma.")
_AT = Param("at", ParamKind.TEXT, "The store as it was then: a sequence, or a time with its zone.")
_RESULT = Param("result", ParamKind.FLAG, "Say what was imported; without it the answer is empty, as Agola's.")
_DRY_RUN = Param("dry_run", ParamKind.FLAG, "Only check the stream.")


_MODE = f"{PREFIX}/maintenance"


class Maintenance(Area[State]):
    """Maintenance mode, export and import."""

    tag = "maintenance"

    @endpoint("GET", _MODE, Principal.CLIENT, answer=MaintenanceStatus, in_maintenance=True)
    def maintenance_status(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Return the mode and the state of each instance."""
        return json_answer(maintenance.status(self._state.datamanager.coordinator))

    @endpoint("PUT", _MODE, Principal.ADMIN, in_maintenance=True)
    def enable_maintenance(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Turn maintenance mode on."""
        maintenance.enable(self._state.datamanager.coordinator)
        return _done()

    @endpoint("DELETE", _MODE, Principal.ADMIN, in_maintenance=True)
    def disable_maintenance(self, call: Call) -> Response:  # noqa: ARG002 - a handler
        """Turn maintenance mode off."""
        maintenance.disable(self._state.datamanager.coordinator)
        return _done()

    @endpoint(
        "GET",
        f"{PREFIX}/export",
        Principal.ADMIN,
        params=(_FORMAT, _PACKING, _INCLUDE, _AT),
        media_type=BINARY,
        in_maintenance=True,
    )
    def export(self, call: Call) -> Response:
        """Stream the whole store.

        A failure breaks the connection, and a native export without its footer is not valid.
        """
        form = _choice(ExportFormat, "format", call.text("format", ExportFormat.NATIVE))
        compression = _choice(Compression, "packing", call.text("packing", Compression.NONE))
        include = transfer.parse_include(call.text("include", ""))
        at = parse_moment(call.text("at")) if call.text("at") else None
        pieces = transfer.export_stream(self._state.datamanager, form, compression=compression, include=include, at=at)
        return stream_answer(pieces if at else self._noted(pieces, form), BINARY)  # of the past it is no backup

    def _noted(self, pieces: Iterator[bytes], form: ExportFormat) -> Iterator[bytes]:
        """Yield an export, and keep when it was whole; a note that cannot be written breaks no export."""
        size = 0
        with closing(cast("Generator[bytes, None, None]", pieces)):
            for piece in pieces:
                size += len(piece)
                yield piece
        try:
            record_export(self._state.datamanager.storage, LastExport(datetime.now(UTC), form.value, size))
        except AgolaError:
            logger.warning("when the store was exported is not noted", exc_info=True)

    @endpoint(
        "POST",
        f"{PREFIX}/import",
        Principal.ADMIN,
        params=(_DRY_RUN, _RESULT),
        upload=BINARY,
        errors=(409,),
        in_maintenance=True,
    )
    def import_(self, call: Call) -> Response:
        """Replace the whole store by the body, or only check it with `dry_run`."""
        body = cast("IO[bytes]", io.BufferedReader(_PiecesFile(call.upload), _BUFFER_BYTES))
        result = transfer.import_(
            self._state.datamanager,
            body,
            dry_run=call.flag("dry_run"),
            progress=lambda _: call.context.check(),  # nobody waits for it any more
        )
        return json_answer(result) if call.flag("result") else _done()


class _PiecesFile(io.RawIOBase):
    """Pieces as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._held = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._held = piece
        piece, self._held = self._held[: len(buffer)], self._held[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


def _done() -> Response:
    return Response(headers={"Content-Type": JSON})


def _choice(kind: type[C], name: str, given: str) -> C:
    try:
        return kind(given)
    except ValueError as error:
        raise BadRequestError(f"{name} must be any of {', '.join(kind)}, not {given[:40]!r}") from error
