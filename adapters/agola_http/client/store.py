"""Client of the store behind a run service: its state, checkpoints, maintenance, exports and imports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, TypeVar

import msgspec

from agola_core.datamanager import Checkpoint, Compacted, Compression, ExportFormat, Garbage, ImportResult
from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import InternalError
from agola_core.maintenance import MaintenanceStatus
from agola_core.runservice.archive.transfer import Include
from agola_core.runtime.closing import Closing
from agola_http.outbound.connection import Params
from agola_http.outbound.transport import Transport
from agola_http.protocol.names import JSON, PREFIX
from agola_http.protocol.records import Checkpointed, ServiceStatus, Version

T = TypeVar("T")

_CHUNK = 1 << 18


class StoreClient(Closing):
    """The calls on the store of a service (see `Client`).

    Args:
        transport: Makes the calls.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def close(self) -> None:
        """Close the connections. Closing twice is harmless."""
        self._transport.close()

    def status(self) -> ServiceStatus:
        """Return the state of the store, its last export and its last verify."""
        return self._call("GET", "/status", ServiceStatus)

    def version(self) -> Version:
        """Return the version of the service."""
        return decoded(self._transport.call("GET", "/version").content, Version)

    def checkpoints(self) -> list[Checkpoint]:
        """Return the retained checkpoints, oldest first."""
        return self._call("GET", "/checkpoints", list[Checkpoint])

    def checkpoint(self) -> Checkpointed:
        """Make a checkpoint now."""
        return decoded(self._transport.call("POST", f"{PREFIX}/checkpoints", patient=True).content, Checkpointed)

    def compact(self) -> Compacted:
        """Rewrite the whole store, without deleted and replaced objects."""
        return decoded(self._transport.call("POST", f"{PREFIX}/compactions", patient=True).content, Compacted)

    def collect_garbage(self, *, dry_run: bool = False) -> list[Garbage]:
        """Delete objects in storage that nothing refers to, and return them.

        Args:
            dry_run: Only return them.
        """
        params = [("dry_run", "")] if dry_run else []
        response = self._transport.call("POST", f"{PREFIX}/garbage", params, patient=True)
        return decoded(response.content, list[Garbage])

    def maintenance_status(self) -> MaintenanceStatus:
        """Return the mode and the state of each instance."""
        return self._call("GET", "/maintenance", MaintenanceStatus)

    def enable_maintenance(self) -> None:
        """Turn maintenance mode on.

        Raises:
            BadRequestError: It is already on.
        """
        self._transport.call("PUT", f"{PREFIX}/maintenance")

    def disable_maintenance(self) -> None:
        """Turn maintenance mode off.

        Raises:
            BadRequestError: It is already off.
        """
        self._transport.call("DELETE", f"{PREFIX}/maintenance")

    def export_stream(
        self,
        form: ExportFormat = ExportFormat.NATIVE,
        compression: Compression = Compression.NONE,
        include: Iterable[Include] = (),
        at: str = "",
    ) -> Iterator[bytes]:
        """Yield the whole store as one consistent snapshot.

        Args:
            form: The native format, or Agola 0.2's.
            compression: Compression of the stream.
            include: Parts to add to the native format.
            at: A past moment: a sequence, or a time with its zone; "" for now.

        Raises:
            UnavailableError: The stream was cut off: the bytes so far are not a valid export.
        """
        params = [("format", form.value), ("packing", compression.value), ("include", ",".join(sorted(include)))]
        params += [("at", at)] if at else []
        with self._transport.pieces(f"{PREFIX}/export", params) as pieces:
            yield from pieces

    def import_(self, file: IO[bytes], *, dry_run: bool = False) -> ImportResult:
        """Replace the content of the store by an export, or change nothing; return what was imported.

        The service must be in maintenance mode.

        Args:
            file: A binary file.
            dry_run: Only check it.

        Raises:
            BadRequestError: The stream is not a valid export, or the service is not in maintenance mode.
        """
        params = [("result", ""), *([("dry_run", "")] if dry_run else [])]
        pieces = iter(lambda: file.read(_CHUNK), b"")
        response = self._transport.call("POST", f"{PREFIX}/import", params, pieces, patient=True)
        return decoded(response.content, ImportResult)

    def _call(
        self,
        method: str,
        path: str,
        kind: type[T],
        params: Params = (),
        *,
        body: object = None,
        content: Iterable[bytes] | None = None,
    ) -> T:
        headers = {"Content-Type": JSON} if body is not None else {}
        data = msgspec.json.encode(body) if body is not None else content
        response = self._transport.call(method, PREFIX + path, params, data, headers, patient=content is not None)
        return decoded(response.content, kind)


def decoded(data: bytes, kind: type[T]) -> T:
    """Return what the service sent.

    Raises:
        InternalError: It is not what it should be.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except DECODE_ERRORS as error:
        raise InternalError(f"the service answered with what it should not: {error}") from error
