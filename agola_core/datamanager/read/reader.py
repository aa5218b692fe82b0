"""The reads that an open datamanager and a past store have in common."""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, TYPE_CHECKING, Self, TypeVar, overload

from agola_core.datamanager.format.events import RESERVED
from agola_core.datamanager.read.snapshot import Snapshot
from agola_core.datamanager.sstable.events.index import EventIndex
from agola_core.datamanager.sstable.view import View
from agola_core.datamanager.transfer.export_format import ExportFormat
from agola_core.datamanager.transfer.parallel_compression import Compression, compress_stream
from agola_core.datamanager.types import Entry
from agola_core.datamanager.validate import check_binary, check_id, check_listing
from agola_core.errors import BadRequestError
from agola_core.runtime.closing import Closing
from agola_core.runtime.lazy import LazyModule
from agola_core.runtime.progress import Progress, ignore

if TYPE_CHECKING:
    from agola_core.datamanager.transfer import export as export_module
else:
    export_module = LazyModule("agola_core.datamanager.transfer.export")

D = TypeVar("D")
T = TypeVar("T")
E = TypeVar("E", bound=enum.StrEnum)


class Reader(Closing):
    """Reads consistent states of a store. Thread-safe; a context manager.

    Attributes:
        data_types: The types of objects that can be read.
    """

    data_types: tuple[str, ...]

    def __enter__(self) -> Self:
        """Return this.

        Raises:
            ClosedError: It was closed.
        """
        self._check_open()
        return self

    @abstractmethod
    def _pinned_view(self) -> AbstractContextManager[View]:
        """Return the state to read, and keep its files while the block runs; raise if this was closed."""

    @overload
    def get(self, data_type: str, object_id: str) -> bytes | None: ...
    @overload
    def get(self, data_type: str, object_id: str, default: D) -> bytes | D: ...
    def get(self, data_type: str, object_id: str, default: D | None = None) -> bytes | D | None:
        """Return an object; the default when it does not exist.

        Args:
            data_type: One of the store's types.
            object_id: The object's id.
            default: Returned for an object that does not exist.

        Raises:
            BadRequestError: The type is unknown.
        """
        check_id(object_id)
        data = self._read(lambda view: view.get(self._known(data_type), object_id))
        return default if data is None else data

    def exists(self, data_type: str, object_id: str) -> bool:
        """Return whether there is an object.

        Raises:
            BadRequestError: The type is unknown.
        """
        return self.get(data_type, object_id) is not None

    def entry(self, data_type: str, object_id: str) -> Entry | None:
        """Return an object with its version, for `Put(..., expected=...)`; None when it does not exist.

        Raises:
            BadRequestError: The type is unknown.
        """
        check_id(object_id)
        return self._read(lambda view: view.entry(self._known(data_type), object_id))

    def list_objects(
        self,
        data_type: str,
        start_after: str = "",
        limit: int | None = None,
        *,
        prefix: str = "",
        backwards: bool = False,
    ) -> Iterator[tuple[str, bytes]]:
        """Yield the ids and bytes of a type's objects, in the byte order of their ids: one consistent state.

        Args:
            data_type: One of the store's types.
            start_after: Only ids that come after it in this order; "" for all.
            limit: The most objects to yield; None for all.
            prefix: Only ids that begin with it.
            backwards: The reverse order: the last id comes first.

        Raises:
            BadRequestError: The type is unknown, or the limit negative.
        """
        self._check_open()
        self._known(data_type)
        check_listing(start_after, limit, prefix)
        return self._list(data_type, start_after, limit, prefix, backwards=backwards)

    def snapshot(self) -> Snapshot:
        """Return a snapshot of the newest state that this process knows; close it after use."""
        return Snapshot(self._pinned_view(), self._known)

    @contextmanager
    def event_index(self) -> Iterator[EventIndex]:
        """Return the events of the newest state that this process knows, while the block runs."""
        with self._pinned_view() as view:
            yield EventIndex(view)

    def export(
        self,
        file: IO[bytes],
        form: ExportFormat = ExportFormat.NATIVE,
        *,
        compression: Compression = Compression.NONE,
        parts: export_module.ExportParts | None = None,
        progress: Progress = ignore,
    ) -> export_module.ExportResult:
        """Write one consistent state, with every acknowledged WAL, to a file, without stopping writers.

        Args:
            file: A binary file.
            form: The native format, or Agola 0.2's.
            compression: How to compress the stream.
            parts: What the caller adds.
            progress: Told of entries and bytes.
        """
        from agola_core.datamanager.transfer.export import write_export  # noqa: PLC0415 - few use it

        check_binary(file, "write", "export writes")
        form, compression = _chosen(ExportFormat, form), _chosen(Compression, compression)
        with self._exported(form, parts, progress) as export:
            return write_export(export, compression, file)

    def export_stream(
        self,
        form: ExportFormat = ExportFormat.NATIVE,
        *,
        compression: Compression = Compression.NONE,
        parts: export_module.ExportParts | None = None,
    ) -> Iterator[bytes]:
        """Yield what `export` writes, in pieces."""
        form, compression = _chosen(ExportFormat, form), _chosen(Compression, compression)
        with self._exported(form, parts, ignore) as export:
            yield from compress_stream(export.pieces(), compression)

    @contextmanager
    def _exported(
        self, form: ExportFormat, parts: export_module.ExportParts | None, progress: Progress
    ) -> Iterator[export_module.Export]:
        from agola_core.datamanager.transfer.export import Export  # noqa: PLC0415 - few use it

        with self._pinned_view() as view:
            yield Export(view, view.revision, self.data_types, form, parts=parts, progress=progress)

    def _read(self, read: Callable[[View], T]) -> T:
        """Return what a function reads from the newest state that this process knows."""
        with self._pinned_view() as view:
            return read(view)

    def _list(
        self, data_type: str, start_after: str, limit: int | None, prefix: str, *, backwards: bool
    ) -> Iterator[tuple[str, bytes]]:
        if limit == 0:
            return
        with self._pinned_view() as view:
            scan = view.scan_back if backwards else view.scan
            for count, entry in enumerate(scan(data_type, start_after, prefix), 1):
                yield entry
                if count == limit:
                    return

    def _known(self, data_type: str) -> str:
        if not self._is_known(data_type):
            raise BadRequestError(f"unknown data type {data_type!r}; known are {', '.join(self.data_types)}")
        return data_type

    def knows(self, data_type: str) -> bool:
        """Return whether the store can have objects of a type: it was opened with it, or has some."""
        if self._is_known(data_type):
            return True
        with self._pinned_view() as view:
            return data_type in view.data_types()

    def _is_known(self, data_type: str) -> bool:
        return isinstance(data_type, str) and (data_type in self.data_types or data_type in RESERVED)

    @abstractmethod
    def _check_open(self) -> None:
        """Raise `ClosedError` once this was closed."""


def _chosen(kind: type[E], given: E) -> E:
    """Return one of the values of an enumeration, which may be given as its text."""
    try:
        return kind(given)
    except ValueError as error:
        names = ", ".join(repr(str(one)) for one in kind)
        raise BadRequestError(f"{kind.__name__} {given!r}: expected one of {names}") from error
