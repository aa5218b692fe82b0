"""The objects of one type as a `MutableMapping`, each decoded by a codec."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from typing import Any, Generic, Protocol, TypeVar, overload

from agola_core.datamanager.objects.codec import Codec, decoded, encoded
from agola_core.datamanager.types import Action, ChangeGroupsToken, Delete, Put
from agola_core.errors import ConflictError

T = TypeVar("T")
D = TypeVar("D")

_MISSING: Any = object()


class Objects(Protocol):
    """The datamanager, as far as a mapping needs it."""

    def get(self, data_type: str, object_id: str) -> bytes | None:
        """Return an object."""

    def list_objects(self, data_type: str) -> Iterator[tuple[str, bytes]]:
        """Yield the objects of a type."""

    def write_wal(self, actions: Iterable[Action]) -> ChangeGroupsToken:
        """Commit actions."""

    def update(self, data_type: str, object_id: str, change: Callable[[bytes | None], bytes | None]) -> bytes | None:
        """Change one object by what it is."""


class ObjectMapping(MutableMapping[str, T], Generic[T]):
    """The objects of one type, by their ids. Thread-safe; every change is one WAL, on the disk when it returns.

    Ids come in byte order, and an iteration sees one state. `len` reads all ids. `update(other)` and `clear()` are one
    WAL each; `pop`, `setdefault` and `change` hold against other writers.

    Args:
        store: The datamanager.
        data_type: The type.
        codec: Decodes and encodes them.
    """

    def __init__(self, store: Objects, data_type: str, codec: Codec[T]) -> None:
        self._store = store
        self._type = data_type
        self._codec = codec

    def __getitem__(self, object_id: str) -> T:
        """Return an object.

        Raises:
            KeyError: There is none.
            BadRequestError: Its bytes are not such a value.
        """
        data = self._store.get(self._type, object_id) if isinstance(object_id, str) else None
        if data is None:
            raise KeyError(object_id)
        return self._decoded(object_id, data)

    def __setitem__(self, object_id: str, value: T) -> None:
        """Store an object, over whatever is there."""
        self._store.write_wal([self._put(object_id, value)])

    def __delitem__(self, object_id: str) -> None:
        """Delete an object.

        Raises:
            KeyError: There is none.
        """
        self._taken(object_id)

    def __contains__(self, object_id: object) -> bool:
        """Return whether there is an object."""
        return isinstance(object_id, str) and self._store.get(self._type, object_id) is not None

    def __iter__(self) -> Iterator[str]:
        """Yield the ids."""
        return (object_id for object_id, _ in self._store.list_objects(self._type))

    def __len__(self) -> int:
        """Return how many objects there are, by reading their ids."""
        return sum(1 for _ in self)

    def items(self) -> ItemsView[str, T]:
        """Return the ids and values: one scan of one state."""
        return _Items(self)

    def values(self) -> ValuesView[T]:
        """Return the values: one scan of one state."""
        return _Values(self)

    def change(self, object_id: str, change: Callable[[T | None], T | None]) -> T | None:
        """Change one object by what it is, as `DataManager.update` does, with values instead of bytes."""

        def changed(old: bytes | None) -> bytes | None:
            new = change(None if old is None else self._decoded(object_id, old))
            return None if new is None else encoded(self._codec, new, self._type, object_id)

        data = self._store.update(self._type, object_id, changed)
        return None if data is None else self._decoded(object_id, data)

    @overload
    def pop(self, object_id: str, /) -> T: ...
    @overload
    def pop(self, object_id: str, /, default: T) -> T: ...
    @overload
    def pop(self, object_id: str, /, default: D) -> T | D: ...
    def pop(self, object_id: str, /, default: Any = _MISSING) -> Any:
        """Delete an object and return it, or the default if there is none."""
        try:
            return self._decoded(object_id, self._taken(object_id))
        except KeyError:
            if default is _MISSING:
                raise
            return default

    def setdefault(self, object_id: str, default: T = None, /) -> T:  # type: ignore[assignment]
        """Return an object; store the default if there is none."""
        while True:
            try:
                return self[object_id]
            except KeyError:
                try:
                    self._store.write_wal([self._put(object_id, default, if_absent=True)])
                except ConflictError:
                    continue  # somebody was first: return that
                return default

    def update(self, other: Any = (), /, **more: T) -> None:
        """Store several objects as one WAL."""
        pairs = other.items() if isinstance(other, Mapping) else other
        actions = [self._put(object_id, value) for object_id, value in (*pairs, *more.items())]
        if actions:
            self._store.write_wal(actions)

    def clear(self) -> None:
        """Delete all objects that are there now, as one WAL."""
        actions = [Delete(self._type, object_id) for object_id in self]
        if actions:
            self._store.write_wal(actions)

    def __repr__(self) -> str:
        """Return the type and the store."""
        return f"<{type(self).__name__} {self._type!r} of {self._store!r}>"

    def scan(self) -> Iterator[tuple[str, T]]:
        """Yield the ids and values of one state."""
        for object_id, data in self._store.list_objects(self._type):
            yield object_id, self._decoded(object_id, data)

    def _decoded(self, object_id: str, data: bytes) -> T:
        return decoded(self._codec, data, self._type, object_id)

    def _put(self, object_id: str, value: T, *, if_absent: bool = False) -> Put:
        return Put(self._type, object_id, encoded(self._codec, value, self._type, object_id), if_absent=if_absent)

    def _taken(self, object_id: str) -> bytes:
        """Delete an object and return its bytes."""
        taken: bytes | None = None

        def take(old: bytes | None) -> None:
            nonlocal taken
            taken = old

        if isinstance(object_id, str):
            self._store.update(self._type, object_id, take)
        if taken is None:
            raise KeyError(object_id)
        return taken


class _Items(ItemsView[str, T]):
    _mapping: ObjectMapping[T]

    def __iter__(self) -> Iterator[tuple[str, T]]:
        return self._mapping.scan()


class _Values(ValuesView[T]):
    _mapping: ObjectMapping[T]

    def __iter__(self) -> Iterator[T]:
        return (value for _, value in self._mapping.scan())
