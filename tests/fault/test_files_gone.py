"""A store whose files are deleted, moved or replaced while it is open: nobody goes on writing into what is gone."""

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import pytest

import agola_core
from agola_core import Options, Put, RecoveryError, UnknownOutcomeError
from agola_core.coordinator import PutOp
from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator

WAIT_SECONDS = 60
GONE = "was deleted, moved or replaced while it was open"


def removed(directory):
    shutil.rmtree(directory)


def made_anew(directory):
    shutil.rmtree(directory)
    write_elsewhere(directory)


def moved_away(directory):
    directory.rename(directory.with_name("elsewhere"))


def parent_moved(directory):
    directory.parent.rename(directory.parent.with_name("elsewhere"))


def coordinator_deleted(directory):
    (directory / "coordinator.db").unlink()


def coordinator_replaced(directory):
    shutil.copy(directory / "coordinator.db", directory / "copy")
    (directory / "copy").rename(directory / "coordinator.db")


def log_deleted(directory):
    (directory / "coordinator.db-wal").unlink()


WAYS = [removed, made_anew, moved_away, parent_moved, coordinator_deleted, coordinator_replaced, log_deleted]


def write_elsewhere(directory):
    """Make a store in another process."""
    code = textwrap.dedent("""
        import sys, agola_core
        from agola_core import Options, Put
        with agola_core.open(sys.argv[1], data_types=["note"], options=Options(background=False)) as dm:
            dm.write_wal([Put("note", "theirs", b"")])
            dm.checkpoint(force=True)
    """)
    subprocess.run([sys.executable, "-c", code, directory], check=True)


def tree(directory):
    """Return the files of a store that hold its state, with their bytes; the shared memory has marks of readers."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file() and not path.name.endswith("-shm"))
    return {path: path.read_bytes() for path in files}


@pytest.fixture
def directory(tmp_path):
    directory = tmp_path / "parent" / "store"
    directory.parent.mkdir()
    return directory


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("background", [False, True])
def test_every_writer_is_told(directory, way, background):
    dm = agola_core.open(directory, data_types=["note"], options=Options(background=background))
    dm.write_wal([Put("note", "a", b"")])
    way(directory)
    before = tree(directory)
    for number in range(3):
        with pytest.raises(RecoveryError, match=GONE):
            dm.write_wal([Put("note", f"b{number}", b"")])
    with pytest.raises(RecoveryError, match=GONE):
        dm.refresh()
    with pytest.raises(RecoveryError, match=GONE):
        dm.sync()
    dm.close()
    if way not in {coordinator_deleted, coordinator_replaced, log_deleted}:  # there, the storage is still its own
        assert tree(directory) == before  # nothing is written into what another made, nor deleted


@pytest.mark.parametrize("way", WAYS)
def test_readers_and_feeds_that_wait_are_told(directory, way):
    dm = agola_core.open(directory, data_types=["note"])
    dm.write_wal([Put("note", "a", b"")])
    with dm.watch() as feed:
        way(directory)
        with pytest.raises(RecoveryError, match=GONE):  # nobody writes: it is noticed all the same
            feed.next(WAIT_SECONDS)
    with pytest.raises(RecoveryError, match=GONE):
        dm.read_object("note", "a")
    dm.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_coordinator_notices_without_a_write(tmp_path, way):
    directory = tmp_path / "parent" / "store"
    coordinator = SQLiteCoordinator(directory / "coordinator.db")
    coordinator.txn([], [PutOp("a", b"")])
    with coordinator.watch("a", 100) as watch:
        way(directory)
        with pytest.raises(RecoveryError, match=GONE):
            watch.next(WAIT_SECONDS)
        with pytest.raises(RecoveryError, match=GONE):
            watch.next(0.0)
    for call in (lambda: coordinator.get("a"), lambda: coordinator.txn([], [PutOp("a", b"")])):
        with pytest.raises((RecoveryError, UnknownOutcomeError), match=GONE):
            call()
    coordinator.close()


def test_many_writers_are_told_of_the_commit_that_nobody_will_find(directory):
    """Everything that was acknowledged is in the files that were moved, and nothing but the last commit besides."""
    dm = agola_core.open(directory, data_types=["note"], options=Options(background=False))
    acknowledged, errors, some = set(), [], threading.Barrier(5)

    def write(writer):
        number = 0
        while True:
            name = f"{writer}-{number}"
            try:
                dm.write_wal([Put("note", name, b"")])
            except RecoveryError as error:
                errors.append(str(error))
                return
            acknowledged.add(name)
            number += 1
            if number == 20:
                some.wait(WAIT_SECONDS)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    some.wait(WAIT_SECONDS)
    moved_away(directory)
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert len(errors) == 4
    assert all(GONE in error for error in errors)
    dm.close()
    with agola_core.open(directory.with_name("elsewhere"), data_types=["note"]) as dm:
        found = {name for name, _ in dm.list_objects("note")}
    assert acknowledged <= found
    assert len(found - acknowledged) <= 4  # one commit, of at most all writers


def test_a_directory_that_comes_back_is_gone_on_with(directory):
    with agola_core.open(directory, data_types=["note"]) as dm:
        dm.write_wal([Put("note", "a", b"")])
        away = directory.with_name("elsewhere")
        directory.rename(away)
        with pytest.raises(RecoveryError, match=GONE):
            dm.write_wal([Put("note", "b", b"")], wal_id="b")
        away.rename(directory)
        dm.write_wal([Put("note", "b", b"")], wal_id="b")
        dm.refresh()
        assert [name for name, _ in dm.list_objects("note")] == ["a", "b"]
        assert dm.sequence.counter == 2
    with agola_core.open(directory, data_types=["note"]) as dm:
        assert [name for name, _ in dm.list_objects("note")] == ["a", "b"]


@pytest.mark.parametrize("scheme", ["posix", "posixflat"])
@pytest.mark.parametrize("way", [removed, made_anew, moved_away])
def test_a_storage_directory_that_is_gone_is_not_written_to_nor_taken_for_empty(tmp_path, way, scheme):
    storage = agola_core.open_storage(f"{scheme}://{tmp_path}/store/storage")
    storage.write("a", b"1")
    way(tmp_path / "store")
    before = tree(tmp_path / "store")
    calls = (
        lambda: storage.write("b", b""),
        lambda: storage.delete("a"),
        lambda: storage.read("a"),
        lambda: storage.stat("a"),  # not "absent", by which others delete, or write it anew
        lambda: list(storage.list()),
        lambda: list(storage.list("a/b")),
    )
    for call in calls:
        with pytest.raises(RecoveryError, match=GONE):
            call()
    assert tree(tmp_path / "store") == before


@pytest.fixture
def disk():
    """A directory on a file system that gives a deleted directory's number to the next one, as ext4 does."""
    for place in (tempfile.gettempdir(), "/tmp", "/var/tmp", Path(__file__).parent):
        with tempfile.TemporaryDirectory(dir=place, prefix="agola-") as name:
            directory = Path(name) / "store"
            directory.mkdir()
            if is_reused(directory):
                yield directory
                return
    pytest.skip("no file system here gives a number again")


def is_reused(directory):
    """Make a directory anew until it has its former number, or never seems to get it."""
    number = directory.stat().st_ino
    for _ in range(100):  # another process may take the number meanwhile
        shutil.rmtree(directory)
        directory.mkdir()
        if directory.stat().st_ino == number:
            return True
    return False


def test_a_directory_made_anew_is_told_apart_though_it_could_have_the_same_number(disk):
    storage = agola_core.open_storage(f"posix://{disk}")
    storage.write("a", b"1")
    assert not is_reused(disk / "data")
    with pytest.raises(RecoveryError, match=GONE):
        storage.write("b", b"")
    with pytest.raises(RecoveryError, match=GONE):
        storage.stat("a")
    assert not list((disk / "data").iterdir())
    storage.close()
    assert not holds(disk)


def holds(directory):
    """Return whether this process has a directory below one open, be it a deleted one."""
    held = (os.path.realpath(file) for file in Path("/proc/self/fd").iterdir())
    return any(name.startswith(str(directory)) for name in held)


UNMOUNTED = """
    import subprocess, sys, agola_core
    from agola_core import Durability, Options, Put, RecoveryError
    volume, local, half = sys.argv[1:]
    subprocess.run(["mount", "-t", "tmpfs", "none", volume], check=True)
    given = {"storage": f"{local}/storage"} if half == "coordinator" else {"coordinator": f"{local}/coordinator.db"}
    options = Options(background=False, durability=Durability.STORAGE)
    dm = agola_core.open(f"{volume}/store", data_types=["note"], options=options, **given)
    dm.write_wal([Put("note", "a", b"")])
    subprocess.run(["umount", "--lazy", volume], check=True)
    try:
        dm.write_wal([Put("note", "b", b"")])
    except RecoveryError as error:
        print(error)
    dm.close()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize("half", ["coordinator", "storage"])
def test_a_volume_that_is_unmounted(tmp_path, half):
    volume, local = tmp_path / "volume", tmp_path / "local"
    volume.mkdir()
    local.mkdir()
    script = [sys.executable, "-c", textwrap.dedent(UNMOUNTED), volume, local, half]
    done = subprocess.run(["unshare", "--mount", *script], capture_output=True, text=True, check=True)
    assert GONE in done.stdout
    assert list(volume.iterdir()) == []
