"""What moves a store: maintenance mode, export and import. Served in maintenance mode, too."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO, cast

from agola_core import maintenance
from agola_core.coordinator.port import Compare
from agola_core.datamanager import ExportFormat
from agola_core.errors import BadRequestError
from agola_core.maintenance import MaintenanceStatus
from agola_http.endpoints import (
    BINARY,
    JSON,
    PREFIX,
    Answer,
    Call,
    Endpoint,
    Param,
    ParamKind,
    Principal,
    json_answer,
    stream_answer,
)
from agola_http.state import State

_TAG = "maintenance"
_BUFFER_BYTES = 1 << 18
_FORMAT = Param("format", ParamKind.TEXT, "`native` (default), or `agola` for Agola 0.2's stream.")
_DRY_RUN = Param("dry_run", ParamKind.FLAG, "Only check the stream.")


class Maintenance:
    """The handlers.

    Args:
        state: What they work on.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def endpoints(self) -> list[Endpoint]:
        """Return the rows of this area."""
        admin, mode = Principal.ADMIN, f"{PREFIX}/maintenance"
        return [
            Endpoint(
                "GET", mode, self.status, Principal.CLIENT, "Return the mode and the states of all instances.", _TAG,
                answer=MaintenanceStatus, in_maintenance=True,
            ),
            Endpoint("PUT", mode, self.enable, admin, "Turn maintenance mode on.", _TAG, in_maintenance=True),
            Endpoint("DELETE", mode, self.disable, admin, "Turn maintenance mode off.", _TAG, in_maintenance=True),
            Endpoint(
                "GET", f"{PREFIX}/export", self.export, admin, "Stream the whole store.", _TAG,
                params=(_FORMAT,), media_type=BINARY, in_maintenance=True,
            ),
            Endpoint(
                "POST", f"{PREFIX}/import", self.import_, admin, "Replace the whole store.", _TAG,
                params=(_DRY_RUN,), upload=BINARY, errors=(409,), in_maintenance=True,
            ),
        ]  # fmt: skip

    def status(self, call: Call) -> Answer:  # noqa: ARG002 - a handler
        """Return the mode and the states of all instances."""
        return json_answer(maintenance.status(self._state.datamanager.coordinator))

    def enable(self, call: Call) -> Answer:  # noqa: ARG002 - a handler
        """Turn maintenance mode on."""
        maintenance.enable(self._state.datamanager.coordinator)
        return _done()

    def disable(self, call: Call) -> Answer:  # noqa: ARG002 - a handler
        """Turn maintenance mode off."""
        maintenance.disable(self._state.datamanager.coordinator)
        return _done()

    def export(self, call: Call) -> Answer:
        """Stream the store; a failure breaks the connection, and a native export without its footer is no export."""
        return stream_answer(self._state.datamanager.export_stream(_format(call.text("format", ExportFormat.NATIVE))))

    def import_(self, call: Call) -> Answer:
        """Replace the content of the store by the body, or only check it with `dry_run`."""
        body = cast("IO[bytes]", io.BufferedReader(_PiecesFile(call.upload), _BUFFER_BYTES))
        self._state.datamanager.import_(body, dry_run=call.flag("dry_run"), barrier=self._barrier)
        return _done()

    def _barrier(self) -> list[Compare]:
        datamanager = self._state.datamanager
        return maintenance.barrier(datamanager.coordinator, datamanager.options.instance)


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


def _done() -> Answer:
    return Answer(headers={"Content-Type": JSON})


def _format(given: str) -> ExportFormat:
    try:
        return ExportFormat(given)
    except ValueError as error:
        raise BadRequestError(f"format must be native or agola, not {given[:40]!r}") from error
