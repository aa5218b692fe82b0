"""Every storage as an fsspec file system: fsspec's own published suite, and what it leaves out."""

import contextlib
import errno
import os
import uuid

import pytest
from fsspec.tests.abstract import (
    AbstractCopyTests,
    AbstractFixtures,
    AbstractGetTests,
    AbstractOpenTests,
    AbstractPipeTests,
    AbstractPutTests,
)

from agola_core.objectstorage import open_storage
from agola_core.objectstorage.filesystem import StorageFileSystem


@pytest.fixture(params=["posix", "posixflat", "s3"])
def storage(request, tmp_path):
    if request.param == "s3":
        url = request.getfixturevalue("agola_session_s3").url(uuid.uuid4().hex)
    else:
        url = f"{request.param}://{tmp_path}/root"
    with contextlib.closing(open_storage(url)) as storage:
        yield storage


local = pytest.mark.parametrize("storage", ["posix", "posixflat"], indirect=True)


@pytest.fixture
def files(storage):
    return StorageFileSystem(storage)


class Fixtures(AbstractFixtures):
    @pytest.fixture
    def fs(self, files):
        return files

    @pytest.fixture
    def fs_path(self):
        return "somewhere"

    @pytest.fixture
    def supports_empty_directories(self):
        return False


class TestCopy(AbstractCopyTests, Fixtures):
    pass


class TestGet(AbstractGetTests, Fixtures):
    pass


class TestOpen(AbstractOpenTests, Fixtures):
    pass


class TestPipe(AbstractPipeTests, Fixtures):
    pass


class TestPut(AbstractPutTests, Fixtures):
    pass


def test_what_is_appended_is_added(files):
    files.pipe("a", b"changed")
    with files.open("a", "ab") as file:
        assert file.tell() == 7
        file.write(b"+more")
    assert files.cat("a") == b"changed+more"
    with files.open("new", "a") as file:
        file.write("text")
    assert files.cat("new") == b"text"


def test_what_is_created_exclusively_replaces_nothing(files):
    with files.open("a", "xb") as first, files.open("a", "xb") as second:
        first.write(b"first")
        second.write(b"second")
        second.close()
        with pytest.raises(FileExistsError):
            first.close()
    assert files.cat("a") == b"second"
    for create in (
        lambda: files.open("a", "xb"),
        lambda: files.open("a", "x"),
        lambda: files.pipe_file("a", b"new", mode="create"),
        lambda: files.put_file(__file__, "a", mode="create"),
    ):
        with pytest.raises(FileExistsError):
            create()
    assert files.cat("a") == b"second"
    files.put_file(__file__, "b", mode="create")
    assert files.size("b") == os.stat(__file__).st_size  # noqa: PTH116


def test_deleting_what_is_not_there_is_an_error(files):
    files.pipe({"d/a": b"1", "b": b"2"})
    for call in (
        lambda: files.rm("none"),
        lambda: files.rm("none", recursive=True),
        lambda: files.rm(["b", "none"]),
        lambda: files.rm_file("none"),
        lambda: files.rmdir("none"),
        lambda: files.mv("none", "other"),
        lambda: files.cp_file("none", "other"),
    ):
        with pytest.raises(FileNotFoundError):
            call()
    for call in (lambda: files.rm("d"), lambda: files.rm("*"), lambda: files.mv("d", "e")):
        with pytest.raises((IsADirectoryError, FileNotFoundError)):
            call()
    with pytest.raises(OSError, match=os.strerror(errno.ENOTEMPTY)):
        files.rmdir("d")
    with pytest.raises(NotADirectoryError):
        files.rmdir("b")
    assert files.find("") == ["b", "d/a"]
    files.rm("d", recursive=True)
    assert files.find("") == ["b"]


def test_a_transaction_that_is_rolled_back_has_done_nothing(files):
    files.pipe({"old": b"old", "moved": b"m"})

    def change():
        files.pipe("old", b"new")
        files.pipe_file("new", b"new", mode="create")
        files.cp_file("old", "copy")
        files.mv("moved", "elsewhere")
        files.touch("touched")
        with files.open("written", "wb") as file:
            file.write(b"1")

    def change_and_fail():
        with files.transaction:
            change()
            raise KeyError

    with pytest.raises(KeyError):
        change_and_fail()
    assert {path: files.cat(path) for path in files.find("")} == {"old": b"old", "moved": b"m"}
    with files.transaction:
        change()
        assert files.cat("old") == b"old"
    assert {path: files.cat(path) for path in files.find("")} == {
        "old": b"new",
        "new": b"new",
        "copy": b"old",
        "elsewhere": b"m",
        "touched": b"",
        "written": b"1",
    }
    files.pipe("after", b"")
    assert files.exists("after")


def test_moving_deletes_what_was_copied_and_nothing_else(files):
    files.pipe({"d/a": b"1", "d/c": b"", "d/deep/b": b"2"})
    files.mv("d", "e", recursive=True, maxdepth=1)
    assert files.find("") == ["d/deep/b", "e/a", "e/c"]  # fsspec's own deletes d/deep/b, too
    with pytest.raises(OSError, match="into itself"):
        files.mv("d", "d/inside", recursive=True)
    files.mv("d", "d", recursive=True)
    assert files.find("") == ["d/deep/b", "e/a", "e/c"]


def test_a_directory_is_no_empty_file(files):
    files.pipe("d/a", b"1")
    with pytest.raises(IsADirectoryError):
        files.open("d")
    for call in (lambda: files.mkdir("d"), lambda: files.mkdir("d/a"), lambda: files.makedirs("d")):
        with pytest.raises(FileExistsError):
            call()
    files.makedirs("d", exist_ok=True)
    files.mkdir("other")


def test_a_tree_refuses_as_trees_do(tmp_path):
    files = StorageFileSystem(open_storage(tmp_path / "root"))
    files.pipe("d/a", b"1")
    with pytest.raises(IsADirectoryError):
        files.pipe("d", b"2")
    with pytest.raises(NotADirectoryError):
        files.pipe("d/a/b", b"2")
    with pytest.raises(OSError, match="component"):
        files.pipe("d//b", b"2")
    assert not files.exists("d//b")


@local  # in a bucket, a reader is told that it was replaced
def test_an_open_object_is_read_as_it_was(files):
    files.pipe("a", b"1" * 100)
    with files.open("a", block_size=10, cache_type="none") as file:
        assert file.read(10) == b"1" * 10
        files.pipe("a", b"2" * 100)
        assert file.read() == b"1" * 90


@local  # calls of the system that fail
@pytest.mark.parametrize(
    ("number", "error"), [(errno.EIO, OSError), (errno.EACCES, PermissionError), (errno.ENOSPC, OSError)]
)
def test_what_cannot_be_told_is_no_no(files, monkeypatch, number, error):
    """A storage that fails is not empty: who copies and deletes would lose what is in it."""
    files.pipe({"d/a": b"1", "b": b"2"})

    def failing(*_arguments, **_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "stat", failing)
    monkeypatch.setattr(os, "scandir", failing)
    for call in (files.exists, files.isfile, files.isdir, files.find, files.ls, files.glob, files.rm):
        with pytest.raises(error) as caught:
            call("b")
        assert caught.value.errno in {number, errno.EIO}
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(error), files.open("b", "wb") as file:
        file.write(b"new")
    monkeypatch.undo()
    assert files.cat("b") == b"2"
