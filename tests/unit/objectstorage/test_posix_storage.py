"""What the directory backends do beyond the contract: durability, confinement, cleaning up, and names."""

import contextlib
import errno
import os
import shutil
import stat
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agola_core.errors import (
    BadRequestError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    OutOfSpaceError,
    UnavailableError,
)
from agola_core.objectstorage import is_portable, open_storage
from agola_core.objectstorage.factory import check_configured
from agola_core.objectstorage.posix import durable


@pytest.fixture(params=["posix", "posixflat"])
def storage(request, tmp_path):
    return open_storage(f"{request.param}://{tmp_path}/root")


def temporary_files(tmp_path):
    return list((tmp_path / "root/tmp").iterdir())


def failing(number, match=lambda *_: True):
    def call(*arguments, **options):
        if match(*arguments):
            raise OSError(number, os.strerror(number))
        return call.real(*arguments, **options)

    return call


def is_directory(descriptor):
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_failed_sync_of_a_directory_is_an_error(storage, tmp_path, monkeypatch, number):
    """Agola swallowed it and said that the object was stored (defect E2)."""
    storage.write("old", b"1")
    call = failing(number, is_directory)
    call.real = os.fsync
    monkeypatch.setattr(os, "fsync", call)
    with pytest.raises(UnavailableError):
        storage.write("old", b"2")
    with pytest.raises(UnavailableError):
        storage.delete("old")
    with pytest.raises(UnavailableError):
        storage.write("new/deep", b"2")
    monkeypatch.undo()
    assert temporary_files(tmp_path) == []
    storage.write("old", b"3")
    assert storage.read("old") == b"3"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("name", ["write", "fsync", "rename"])
def test_a_full_disk_changes_nothing(storage, tmp_path, monkeypatch, name, number):
    storage.write("old", b"1" * 100)
    call = failing(number)
    call.real = getattr(os, name)
    monkeypatch.setattr(os, name, call)
    with pytest.raises(OutOfSpaceError, match="full"):
        storage.write("old", b"2" * 100)
    monkeypatch.undo()
    assert storage.read("old") == b"1" * 100
    assert [info.path for info in storage.list()] == ["old"]
    assert temporary_files(tmp_path) == []


def test_a_short_write_goes_on_where_it_stopped(storage, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:7]))
    assert storage.write("key", b"0123456789" * 5) == 50
    monkeypatch.undo()
    assert storage.read("key") == b"0123456789" * 5


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_answer(tmp_path, monkeypatch):
    storage = open_storage(tmp_path / "root")
    calls = []

    def noted(name):
        real = getattr(os, name)

        def call(*arguments, **options):
            kind = name
            if name == "fsync":
                kind = "sync-directory" if is_directory(arguments[0]) else "sync-file"
            calls.append(kind)
            return real(*arguments, **options)

        return call

    for name in ("write", "fsync", "rename", "mkdir"):
        monkeypatch.setattr(os, name, noted(name))
    storage.write("a/b", b"data")
    assert calls == ["write", "sync-file", "mkdir", "sync-directory", "rename", "sync-directory"]


def test_directories_of_a_process_that_was_killed_are_synced_before_anything_in_them_is_acknowledged(
    tmp_path, monkeypatch
):
    storage = open_storage(tmp_path / "root")
    directory = tmp_path / "root/data/made"
    directory.mkdir()  # and not synced
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(os.fstat(descriptor).st_ino), real(descriptor)))
    storage.write("made/key", b"1")
    assert directory.parent.stat().st_ino in synced
    synced.clear()
    storage.write("made/key", b"2")
    assert directory.parent.stat().st_ino not in synced  # once is enough
    storage.delete("made/key")
    with contextlib.suppress(FileExistsError):
        directory.mkdir()
    storage.write("made/key", b"3")
    assert directory.parent.stat().st_ino in synced


def test_an_object_that_exists_lasts_when_its_writer_was_killed_before_it_was_synced(storage, tmp_path, monkeypatch):
    storage.write("one", b"1")
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(os.fstat(descriptor).st_ino), real(descriptor)))
    with pytest.raises(ConflictError):
        storage.write("one", b"2", if_absent=True)
    assert (tmp_path / "root/data").stat().st_ino in synced


def test_what_a_killed_process_left_is_swept_when_it_is_old(tmp_path):
    open_storage(tmp_path / "root")
    old, young = (tmp_path / "root/tmp" / name for name in ("1-a.tmp", "2-b.tmp"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    open_storage(tmp_path / "root")
    assert temporary_files(tmp_path) == [young]  # another process may be at work on it


@pytest.fixture
def vanish(monkeypatch):
    """Return what makes files vanish between the reading of their directory and whatever comes next."""
    real = os.scandir

    def make(ending):
        class Entries(contextlib.ExitStack):
            """Like what `os.scandir` returns, with the files gone already."""

            def __init__(self, path):
                super().__init__()
                with real(path) as entries:
                    found = list(entries)
                for entry in found:
                    if entry.name.endswith(ending) and entry.is_file():
                        Path(entry.path).unlink()
                self._found = iter(found)

            def __enter__(self):
                return self

            def __iter__(self):
                return self

            def __next__(self):
                return next(self._found)

        monkeypatch.setattr(os, "scandir", Entries)

    return make


def test_a_temporary_file_that_its_writer_renames_does_not_disturb_the_sweep(tmp_path, vanish):
    """Openings beside three writing threads failed 7 % of the time."""
    open_storage(tmp_path / "root").write("a", b"1")
    (tmp_path / "root/tmp/1-a.tmp").write_bytes(b"half")
    vanish(".tmp")
    assert open_storage(tmp_path / "root").read("a") == b"1"


def test_an_object_that_vanishes_under_a_list_is_left_out(storage, vanish):
    for key in ("a/one", "a/two", "three"):
        storage.write(key, b"")
    vanish("two")
    assert [info.path for info in storage.list()] == ["a/one", "three"]


def test_a_directory_that_vanishes_under_a_list_is_left_out(storage, tmp_path, monkeypatch):
    for key in ("some-directory/one", "three"):
        storage.write(key, b"")
    real = os.scandir
    (directory,) = (path for path in (tmp_path / "root/data").iterdir() if path.is_dir())

    def scandir(path):
        if str(path).rstrip("/") == str(directory):
            shutil.rmtree(directory, ignore_errors=True)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [info.path for info in storage.list()] == ["three"]


@pytest.mark.parametrize(("number", "error"), [(errno.EIO, UnavailableError), (errno.EACCES, ForbiddenError)])
def test_a_directory_that_cannot_be_read_is_no_empty_one(storage, tmp_path, monkeypatch, number, error):
    """posixflat left out, without a word, what it could not see."""
    storage.write("some-directory/one", b"")
    call = failing(number, lambda path: str(path) != str(tmp_path / "root/data"))
    call.real = os.scandir
    monkeypatch.setattr(os, "scandir", call)
    with pytest.raises(error):
        list(storage.list())


def test_nothing_leaves_the_root_by_links(storage, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    data = tmp_path / "root/data"
    (data / "link").symlink_to(outside)
    (data / "12345678").symlink_to(outside)
    (data / "file").symlink_to(outside / "secret")
    for key in ("link/secret", "12345678secret", "12345678/secret", "file"):
        for use in (storage.delete, storage.stat, lambda key: storage.write(key, b"changed")):
            with contextlib.suppress(BadRequestError, NotFoundError):  # or it is a file of its own beside the link
                use(key)
        with contextlib.suppress(BadRequestError, NotFoundError):
            assert storage.read(key) != b"secret"
    for prefix in ("", "link/", "12345678"):
        assert all(storage.read(info.path) != b"secret" for info in storage.list(prefix))
    assert (outside / "secret").read_bytes() == b"secret"
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_emptied_directories_go_and_racing_writers_are_not_disturbed(tmp_path):
    storage = open_storage(tmp_path / "root")
    stop = threading.Event()
    failures = []

    def churn():
        while not stop.is_set():
            try:
                storage.write("a/b/c/one", b"1")
                storage.delete("a/b/c/one")
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(200):
            storage.write("a/b/c/two", b"2")
            assert storage.read("a/b/c/two") == b"2"
            storage.delete("a/b/c/two")
    finally:
        stop.set()
        thread.join()
    assert not failures
    assert list((tmp_path / "root/data").iterdir()) == []


def test_a_stray_file_breaks_no_list(tmp_path):
    """Agola's posixflat refused to list anything beside one (defect E4)."""
    storage = open_storage(f"posixflat://{tmp_path}/root")
    storage.write("key", b"")
    for name in ("12345678/.f", "123456789", "%zz", "12345678"):
        path = tmp_path / "root/data/stray" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(b"")
    assert "key" in [info.path for info in storage.list()]
    assert all(storage.stat(info.path) for info in storage.list())


@pytest.mark.parametrize("kind", ["posix", "posixflat"])
def test_names_that_are_no_text_are_no_keys(kind, tmp_path):
    """Somebody else's file with such a name ended an export, whose records are text."""
    storage = open_storage(f"{kind}://{tmp_path}/root")
    storage.write("key", b"")
    for name in (b"z\xff", b"z\xff.d/z"):
        path = os.fsencode(tmp_path / "root/data") + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb"):  # noqa: PTH123
            pass
    assert [info.path for info in storage.list()] == ["key"]
    assert [info.path for info in storage.list(recursive=False)] == ["key"]
    for use in (lambda key: storage.write(key, b""), storage.read, storage.stat, storage.delete):
        with pytest.raises(BadRequestError, match="not valid Unicode"):
            use("z\udcff")


def test_lists_are_in_byte_order_and_not_in_the_order_of_a_walk(storage):
    keys = ["a", "a!b", "a-b/c", "a0", "b/a", "b0", "ÿ", "\U00010000"]
    for key in keys:
        storage.write(key, b"")
    storage.write("b/é/x", b"")
    assert [info.path for info in storage.list()] == sorted([*keys, "b/é/x"], key=str.encode)


def test_a_service_cannot_be_configured_with_posixflat(tmp_path):
    assert check_configured("s3://bucket") == "s3://bucket"
    for use in (check_configured, lambda url: open_storage(url, configured=True)):
        with pytest.raises(BadRequestError, match="for the library"):
            use(f"posixflat://{tmp_path}")


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=300))
def test_a_portable_key_is_taken_by_every_backend_and_stays_below_the_root(tmp_path_factory, key):
    root = tmp_path_factory.mktemp("portable")
    for kind in ("posix", "posixflat"):
        storage = open_storage(f"{kind}://{root}/{kind}")
        try:
            storage.write(key, b"x")
        except BadRequestError:
            assert not is_portable(key)
        else:
            assert storage.read(key) == b"x"
            assert [info.path for info in storage.list()] == [key]
    assert {path.name for path in root.iterdir()} == {"posix", "posixflat"}


def test_the_sync_of_a_directory_is_really_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError):
        durable.sync_directory(str(tmp_path / "none"))


def test_a_temporary_file_that_is_swept_away_is_no_missing_object(storage, tmp_path):
    """A process whose clock is ahead takes it for an abandoned one when it opens the storage."""

    def pieces():
        yield b"1"
        for file in temporary_files(tmp_path):
            file.unlink()

    with pytest.raises(UnavailableError, match="temporary file"):
        storage.write("a", pieces())
    storage.write("a", b"2")
    assert storage.read("a") == b"2"
