"""Every row of the table of a disk's failures: what a write's or a deletion's caller is told is what was done."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agola_core.errors import ConflictError, NotFoundError, OutOfSpaceError, UnavailableError
from agola_core.objectstorage import open_storage
from agola_core.objectstorage.posix import durable

FULL = {errno.ENOSPC, errno.EDQUOT}
numbers = pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)


@pytest.fixture(params=["posix", "posixflat"])
def storage(request, tmp_path):
    storage = open_storage(f"{request.param}://{tmp_path}/root")
    storage.write("key", b"old")
    return storage


@pytest.fixture
def fail(monkeypatch):
    """Return what lets a call of the operating system fail, before or after it has done what it was asked for."""

    def let(name, number, *, which=lambda *_: True, done=False):
        real = getattr(os, name)

        def call(*arguments, **options):
            if not which(*arguments):
                return real(*arguments, **options)
            if done:
                real(*arguments, **options)
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, name, call)

    yield let
    monkeypatch.undo()


def is_directory(descriptor, *_):
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def is_file(descriptor, *_):
    return not is_directory(descriptor)


def stored(storage):
    return {info.path: storage.read(info.path) for info in storage.list()}


def told(number):
    return OutOfSpaceError if number in FULL else UnavailableError


def leftovers(tmp_path):
    return list((tmp_path / "root/tmp").iterdir())


@numbers
@pytest.mark.parametrize(
    ("name", "which"),
    [("open", lambda path, *_: str(path).endswith(".tmp")), ("write", is_file), ("fsync", is_file), ("close", is_file)],
    ids=["open", "write", "fsync", "close"],
)
@pytest.mark.parametrize("if_absent", [False, True])
def test_a_temporary_file_that_fails_is_a_write_that_is_not_applied(
    storage, tmp_path, fail, monkeypatch, name, which, number, if_absent
):
    fail(name, number, which=which, done=name == "close")
    for key in ("new",) if if_absent else ("key", "new"):
        with pytest.raises(told(number)):
            storage.write(key, b"new", if_absent=if_absent)
    monkeypatch.undo()
    assert stored(storage) == {"key": b"old"}
    assert leftovers(tmp_path) == []


@numbers
@pytest.mark.parametrize("name", ["mkdir", "fsync"])
def test_a_directory_above_that_fails_is_a_write_that_is_not_applied(tmp_path, fail, monkeypatch, name, number):
    storage = open_storage(tmp_path / "root")
    fail(name, number, which=is_directory if name == "fsync" else lambda *_: True)
    with pytest.raises(told(number)):
        storage.write("some/new", b"new")
    monkeypatch.undo()
    assert stored(storage) == {}
    assert leftovers(tmp_path) == []
    storage.write("some/new", b"new")
    assert stored(storage) == {"some/new": b"new"}


@numbers
def test_a_storage_that_cannot_be_made(tmp_path, fail, number):
    fail("mkdir", number)
    with pytest.raises(told(number), match="storage"):
        open_storage(tmp_path / "root")


@numbers
@pytest.mark.parametrize("if_absent", [False, True])
@pytest.mark.parametrize("done", [False, True])
def test_a_name_that_fails_is_looked_at(storage, tmp_path, fail, monkeypatch, number, if_absent, done):
    """On NFS a rename or link that was done may be answered with an error."""
    key = "new" if if_absent else "key"
    fail("link" if if_absent else "rename", number, done=done)
    if done:
        assert storage.write(key, b"new", if_absent=if_absent) == 3
    else:
        with pytest.raises(told(number)):
            storage.write(key, b"new", if_absent=if_absent)
    monkeypatch.undo()
    assert stored(storage) == {"key": b"old", **({key: b"new"} if done else {})}
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("name", "number"), [("link", errno.EEXIST), ("rename", errno.ENOENT)])
def test_an_answer_to_what_was_sent_twice_is_looked_at(storage, fail, name, number):
    """The answer to the first one is lost; the second one finds what the first one did."""
    fail(name, number, done=True)
    assert storage.write("new", b"new", if_absent=name == "link") == 3
    assert stored(storage) == {"key": b"old", "new": b"new"}


def test_somebody_elses_object_is_not_taken_for_ones_own(storage, fail):
    storage.write("taken", b"new")
    with pytest.raises(ConflictError):
        storage.write("taken", b"new", if_absent=True)
    fail("link", errno.EIO)
    with pytest.raises(UnavailableError):
        storage.write("taken", b"new", if_absent=True)


@numbers
@pytest.mark.parametrize("done", [False, True])
def test_a_deletion_that_fails_is_looked_at(storage, fail, monkeypatch, number, done):
    fail("unlink", number, done=done)
    if done:
        storage.delete("key")
    else:
        with pytest.raises(told(number)):
            storage.delete("key")
    monkeypatch.undo()
    assert stored(storage) == ({} if done else {"key": b"old"})


@numbers
def test_a_last_sync_that_fails_leaves_it_unknown_whether_it_lasts(storage, fail, monkeypatch, number):
    fail("fsync", number, which=is_directory)
    for use in (
        lambda: storage.write("key", b"new"),
        lambda: storage.write("created", b"new", if_absent=True),
        lambda: storage.delete("key"),
    ):
        with pytest.raises(UnavailableError, match="survives a loss of power is not known") as caught:
            use()
        assert not isinstance(caught.value, OutOfSpaceError)
    monkeypatch.undo()
    assert stored(storage) == {"created": b"new"}


def test_an_emptied_directory_that_stays_is_no_matter(tmp_path, fail):
    storage = open_storage(tmp_path / "root")
    storage.write("some/key", b"1")
    fail("rmdir", errno.EIO)
    storage.delete("some/key")
    assert stored(storage) == {}


def test_an_object_that_is_deleted_before_its_directory_is_synced_was_written(tmp_path, monkeypatch):
    storage, other = open_storage(tmp_path / "root"), open_storage(tmp_path / "root")
    real = os.rename

    def rename(source, target):
        real(source, target)
        monkeypatch.setattr(os, "rename", real)
        other.delete("some/key")

    monkeypatch.setattr(os, "rename", rename)
    assert storage.write("some/key", b"1") == 1
    with pytest.raises(NotFoundError):
        storage.read("some/key")


FULL_DISK = """
import sys
from pathlib import Path
from agola_core.errors import OutOfSpaceError
from agola_core.objectstorage import open_storage
from tests.soak.disks.full_disk import mount

directory = Path(sys.argv[1])
if not mount(directory, 1 << 20):
    sys.exit(77)
storage = open_storage(directory / "root")
storage.write("key", b"old")
for number in range(100):
    try:
        storage.write(f"{number}", bytes(50_000))
    except OutOfSpaceError:
        break
else:
    sys.exit("the disk is never full")
before = [info.path for info in storage.list()]
for key, if_absent in (("key", False), ("new/new", True)):
    try:
        storage.write(key, bytes(900_000), if_absent=if_absent)
        sys.exit("it was written")
    except OutOfSpaceError:
        pass
assert [info.path for info in storage.list()] == before
assert storage.read("key") == b"old"
assert not list((directory / "root/tmp").iterdir())
storage.delete("0")
storage.write("key", b"new")
"""


def test_a_disk_that_is_really_full(tmp_path):
    command = [sys.executable, "-W", "error", "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("mounting a file system is not permitted")
    assert done.returncode == 0, done.stderr


def test_the_table_stands_in_the_documentation():
    page = (Path(__file__).parents[3] / "docs/guarantees.md").read_text()
    rows = [line for line in (durable.__doc__ or "").splitlines() if line.startswith("| ")]
    assert len(rows) == 8
    assert "\n".join(rows) in page
