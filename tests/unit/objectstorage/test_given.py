"""Storages on fsspec file systems that the user gives: the probe, and stores on those that pass it."""

import contextlib
import threading

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.memory import MemoryFileSystem

import agola_core
from agola_core import BadRequestError, Put
from agola_core.events import Event

ROOT = "/given/store"
SECONDS = 30


@pytest.fixture(autouse=True)
def _empty():
    yield
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


class Forgetful(MemoryFileSystem):
    """Lists directories from a cache that nothing clears."""

    cachable = False

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.listed = {}

    def find(self, path, maxdepth=None, withdirs=False, detail=False, **options):
        return self.listed.setdefault(path, super().find(path, maxdepth, withdirs, detail, **options))


class Stale(MemoryFileSystem):
    """Reads what another instance has replaced from its own cache."""

    cachable = False

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.own = {}

    def cp_file(self, path1, path2, **options):
        super().cp_file(path1, path2, **options)
        self.own.pop(path2, None)

    def cat_file(self, path, start=None, end=None, **options):
        return self.own.setdefault(path, super().cat_file(path))[start:end]


class Rangeless(MemoryFileSystem):
    """Answers every range with the whole file."""

    def cat_file(self, path, start=None, end=None, **options):
        return super().cat_file(path, **options)


class Torn(MemoryFileSystem):
    """Copies in two halves, between which a reader can look."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.read = threading.Event()
        self.copying = False

    def cat_file(self, path, start=None, end=None, **options):
        body = super().cat_file(path, start, end, **options)
        if self.copying:
            self.read.set()
        return body

    def cp_file(self, path1, path2, **options):
        body = super().cat_file(path1)
        if path2.endswith("/replaced") and self.exists(path2) and not self.read.is_set():
            super().pipe_file(path2, body[: len(body) // 2])
            self.copying = True
            self.read.wait(SECONDS)
            self.copying = False
        super().pipe_file(path2, body)


class Keeping(MemoryFileSystem):
    """Deletes nothing."""

    def rm_file(self, path):
        if "/given/store/" in path:
            return
        super().rm_file(path)


class Silent(MemoryFileSystem):
    """Raises an error of its own for a missing file."""

    def cat_file(self, path, start=None, end=None, **options):
        try:
            return super().cat_file(path, start, end, **options)
        except FileNotFoundError:
            raise KeyError(path) from None


class Timeless(MemoryFileSystem):
    """Does not tell when a file was written."""

    def info(self, path, **options):
        return {name: value for name, value in super().info(path, **options).items() if name != "created"}


class Full(MemoryFileSystem):
    """Refuses every write."""

    def pipe_file(self, path, value, mode="overwrite", **options):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (Forgetful, "listing after a write: it gives"),
        (Stale, "reading after a write: it gives b'two' where b'from elsewhere' was written"),
        (Rangeless, "reading ranges: it gives"),
        (Torn, "atomic replacement: a reader saw a part of an object that was being replaced"),
        (Keeping, "listing after a write: it gives"),
        (Silent, "deletion: reading an object that was deleted raises KeyError"),
        (Timeless, "times of objects: it does not tell when an object was written"),
        (Full, "writing: object .* No space left on device"),
    ],
)
def test_the_probe_names_what_a_file_system_does_not_do(kind, what):
    with pytest.raises(BadRequestError, match=f"^the file system {kind.__name__} cannot hold a storage: {what}"):
        agola_core.open_storage(kind(skip_instance_cache=True), ROOT)
    if kind is not Keeping:
        assert not MemoryFileSystem().find("/given")


def test_the_probe_leaves_nothing_and_changes_nothing():
    files = fsspec.filesystem("memory")
    files.pipe_file(f"{ROOT}/theirs", b"1")
    storage = agola_core.open_storage(files, ROOT)
    assert files.find("/given") == [f"{ROOT}/theirs"]
    assert [info.path for info in storage.list()] == ["theirs"]


def test_a_file_system_needs_a_root_and_a_url_has_its_own(tmp_path):
    with pytest.raises(BadRequestError, match="name a directory of the file system"):
        agola_core.open_storage(fsspec.filesystem("memory"))
    with pytest.raises(BadRequestError, match="a root belongs to an fsspec file system"):
        agola_core.open_storage(tmp_path, "root")


@pytest.mark.parametrize("kind", ["memory", "local", "dir"])
def test_a_whole_store_on_a_given_file_system(tmp_path, kind):
    if kind == "dir":
        files, root = DirFileSystem(str(tmp_path / "below"), fsspec.filesystem("local")), "store"
    else:
        files, root = fsspec.filesystem(kind), str(tmp_path / "store")

    def open_store(**options):
        storage = agola_core.open_storage(files, root)
        coordinator = str(tmp_path / "coordinator.db")
        return agola_core.open(
            storage=storage, coordinator=coordinator, data_types=["note"], durability="storage", **options
        )

    with open_store() as dm:
        for number in range(20):
            dm.write_wal([Put("note", f"{number}", b"%d" % number)])
        dm.checkpoint(force=True)
        dm.write_wal([Put("note", "large", bytes(300_000))])
        moment = str(dm.sequence)
        assert dm.verify() == []
    for file in tmp_path.glob("coordinator.db*"):
        file.unlink()
    with open_store() as dm:  # the storage alone has all of it
        assert len(list(dm.list_objects("note"))) == 21
        dm.collect_garbage()
        assert dm.verify() == []
    with open_store(read_only=True) as dm:
        assert dm.read_object("note", "3")[0] == b"3"
    assert moment


def test_a_given_storage_stays_open_when_its_store_is_closed_or_cannot_be_opened(tmp_path):
    with contextlib.closing(agola_core.open_storage(tmp_path / "storage")) as storage:
        where = {"storage": storage, "coordinator": str(tmp_path / "coordinator.db")}
        with pytest.raises(agola_core.NotFoundError):
            agola_core.open(**where)
        with agola_core.open_events(**where) as store:
            store.append([Event("Opened", b"{}")], stream="s")
        with agola_core.open_events(**where) as store:
            assert [event.type for event in store.read_stream("s")] == ["Opened"]
        storage.write("still", b"open")
        with agola_core.open(**where, read_only=True) as dm, pytest.raises(agola_core.ForbiddenError):
            dm.storage.write("not", b"now")


def test_a_large_object_is_put_as_a_file_and_read_in_ranges(tmp_path):
    storage = agola_core.open_storage(fsspec.filesystem("local"), str(tmp_path / "store"))
    whole = bytes(range(256)) * 40_000
    assert storage.write("large", (whole[start : start + 100_000] for start in range(0, len(whole), 100_000))) == len(
        whole
    )
    assert b"".join(storage.open_stream("large")) == whole
    reader = storage.open_reader("large")
    assert reader.read(0, 3) == whole[:3]
    storage.write("large", b"another")
    with pytest.raises(agola_core.NotFoundError, match="was replaced while it was read"):
        reader.read(3, 3)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["large"]
