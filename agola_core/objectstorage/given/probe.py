"""The probe: tries on a given file system what a storage needs, and names what fails.

It writes below a directory of its own in the storage and removes everything again. Durability is what it cannot see: a
file system that keeps what it has acknowledged only until the machine fails passes, too.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fsspec import AbstractFileSystem

from agola_core.errors import AgolaError, BadRequestError, ConflictError, NotFoundError
from agola_core.objectstorage.given.storage import FileSystemStorage

_REPLACEMENTS = 40
_LARGE = 300_000


class _FailedError(Exception):
    """The file system does something else than a storage needs."""


def open_given(files: AbstractFileSystem, root: str) -> FileSystemStorage:
    """Return a storage on a file system that has passed the probe.

    Args:
        files: The file system.
        root: A directory, or a bucket and a prefix.

    Raises:
        BadRequestError: The file system does not do what a storage needs; names what.
    """
    if not isinstance(files, AbstractFileSystem):
        raise BadRequestError(f"a storage is a URL or an fsspec file system, not {files!r}"[:200])
    storage = FileSystemStorage(files, root)
    name = f"agola-probe-{uuid.uuid4().hex[:16]}"
    try:
        with _naming(files, "writing"):
            storage.moves = _shows_before_it_is_closed(files, storage, name)
        for what, check in _CHECKS:
            with _naming(files, what):
                check(storage, files, root, name)
    finally:
        for info in _left(storage, name):
            with suppress(AgolaError):
                storage.delete(info)
    return storage


def _shows_before_it_is_closed(files: AbstractFileSystem, storage: FileSystemStorage, name: str) -> bool:
    """Return whether a file that is being written replaces the one that was there at once."""
    storage.write(f"{name}/whole", b"old")
    place = storage.place(f"{name}/whole")
    with files.open(place, "wb") as file:
        file.write(b"new one")
        files.invalidate_cache()
        try:
            shows = bool(files.cat_file(place) != b"old")
        except Exception:  # noqa: BLE001 - whatever else it is, it is not the old one
            shows = True
    return shows


def _reading(storage: FileSystemStorage, files: AbstractFileSystem, root: str, name: str) -> None:
    for key in ("one", "a-b/ü 日本", "100%/%2F", "a-b/deep/er/x"):
        storage.write(f"{name}/{key}", key.encode())
        _same(storage.read(f"{name}/{key}"), key.encode())
    storage.write(f"{name}/one", (piece for piece in (b"tw", b"o")))
    _same(storage.read(f"{name}/one"), b"two")
    storage.write(f"{name}/empty", b"")
    _same(storage.read(f"{name}/empty"), b"")
    other = _another(files, root)
    if other is not None:
        storage.read(f"{name}/one")
        other.moves = storage.moves
        other.write(f"{name}/one", b"from elsewhere")
        _same(storage.read(f"{name}/one"), b"from elsewhere")


def _ranges(storage: FileSystemStorage, _: AbstractFileSystem, __: str, name: str) -> None:
    storage.write(f"{name}/range", bytes(range(100)))
    _same(storage.read(f"{name}/range", 10, 5), bytes(range(10, 15)))
    _same(storage.read(f"{name}/range", 90, 50), bytes(range(90, 100)))
    _same(storage.read(f"{name}/range", 95), bytes(range(95, 100)))
    _same(storage.read(f"{name}/range", 200, 5), b"")


def _listing(storage: FileSystemStorage, files: AbstractFileSystem, root: str, name: str) -> None:
    keys = [f"{name}/list/{key}" for key in ("a-b", "a/b", "a/c/d", "ab")]
    _same(_keys(storage, f"{name}/list/"), [])
    for key in reversed(keys):
        storage.write(key, b"x")
    _same(_keys(storage, f"{name}/list/"), keys)
    _same(_keys(storage, f"{name}/list/a/"), keys[1:3])
    _same([info.size for info in storage.list(f"{name}/list/")], [1] * 4)
    other = _another(files, root)
    if other is not None:  # a listing from a cache would miss it
        other.moves = storage.moves
        other.write(f"{name}/list/b", b"")
        _same(_keys(storage, f"{name}/list/"), [*keys, f"{name}/list/b"])
        storage.delete(f"{name}/list/b")
    storage.delete(keys[2])
    _same(_keys(storage, f"{name}/list/"), [*keys[:2], keys[3]])


def _replacement(storage: FileSystemStorage, _: AbstractFileSystem, __: str, name: str) -> None:
    key, stop = f"{name}/replaced", threading.Event()
    failures: list[BaseException] = []
    storage.write(key, b"a" * _LARGE)

    def replace() -> None:
        try:
            for number in range(_REPLACEMENTS):
                storage.write(key, (b"b" if number % 2 else b"a") * _LARGE)
        except AgolaError as error:
            failures.append(error)
        finally:
            stop.set()

    thread = threading.Thread(target=replace, name="agola-probe")
    thread.start()
    try:
        while not stop.is_set():
            body = storage.read(key)
            if len(body) != _LARGE or len(set(body)) != 1:
                raise _FailedError("a reader saw a part of an object that was being replaced")
    except NotFoundError as error:
        raise _FailedError("a reader found nothing where an object was being replaced") from error
    finally:
        thread.join()
    if failures:
        raise failures[0]


def _creation(storage: FileSystemStorage, _: AbstractFileSystem, __: str, name: str) -> None:
    storage.write(f"{name}/created", b"first", if_absent=True)
    with _expected(ConflictError, "a second creation of one object"):
        storage.write(f"{name}/created", b"second", if_absent=True)
    _same(storage.read(f"{name}/created"), b"first")


def _deletion(storage: FileSystemStorage, _: AbstractFileSystem, __: str, name: str) -> None:
    storage.write(f"{name}/deleted", b"x")
    storage.delete(f"{name}/deleted")
    with _expected(NotFoundError, "reading an object that was deleted"):
        storage.read(f"{name}/deleted")


def _missing(storage: FileSystemStorage, _: AbstractFileSystem, __: str, name: str) -> None:
    uses: dict[str, Callable[[str], object]] = {
        "reading": storage.read,
        "looking at": storage.stat,
        "deleting": storage.delete,
    }
    for what, use in uses.items():
        with _expected(NotFoundError, f"{what} an object that is missing"):
            use(f"{name}/none")
        with _expected(NotFoundError, f"{what} what is a directory"):
            use(f"{name}/list")


def _times(storage: FileSystemStorage, _: AbstractFileSystem, __: str, name: str) -> None:
    storage.write(f"{name}/time", b"x")
    found = [storage.stat(f"{name}/time"), *storage.list(f"{name}/time")]
    if any(info.modified is None for info in found):
        raise _FailedError("it does not tell when an object was written")


_CHECKS: tuple[tuple[str, Callable[[FileSystemStorage, AbstractFileSystem, str, str], None]], ...] = (
    ("reading after a write", _reading),
    ("reading ranges", _ranges),
    ("listing after a write", _listing),
    ("atomic replacement", _replacement),
    ("exclusive creation", _creation),
    ("deletion", _deletion),
    ("errors for missing objects", _missing),
    ("times of objects", _times),
)


@contextmanager
def _naming(files: AbstractFileSystem, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        kind = type(files).__name__
        raise BadRequestError(f"the file system {kind} cannot hold a storage: {what}: {error}") from error


@contextmanager
def _expected(kind: type[AgolaError], what: str) -> Iterator[None]:
    try:
        yield
    except kind:
        return
    except AgolaError as error:
        raise _FailedError(f"{what} raises {type(error.__cause__ or error).__name__}") from error
    raise _FailedError(f"{what} raises nothing")


def _same(found: object, expected: object) -> None:
    if found != expected:
        raise _FailedError(f"it gives {_short(found)} where {_short(expected)} was written")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _another(files: AbstractFileSystem, root: str) -> FileSystemStorage | None:
    """Return a storage on another instance of a file system, sharing no cache with it; None if that is impossible."""
    arguments: Any = getattr(files, "storage_args", ())
    options: Any = {**getattr(files, "storage_options", {}), "skip_instance_cache": True}
    try:
        return FileSystemStorage(type(files)(*arguments, **options), root)
    except Exception:  # noqa: BLE001 - file systems that wrap others often cannot be made again
        return None


def _keys(storage: FileSystemStorage, prefix: str) -> list[str]:
    return [info.path for info in storage.list(prefix)]


def _left(storage: FileSystemStorage, name: str) -> list[str]:
    try:
        return _keys(storage, f"{name}/")
    except AgolaError:
        return []
