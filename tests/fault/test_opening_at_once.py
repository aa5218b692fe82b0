"""SQLite databases that several processes open, or close, at the same moment: one waits, or looks again."""

from contextlib import closing

import apsw
import pytest

from agola_core.coordinator import PutOp
from agola_core.coordinator.sqlite import read_only
from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator
from agola_core.db import Context, Database, Purpose
from agola_core.errors import UnavailableError


class WaitingDisk(apsw.VFS):
    """The real file system of SQLite; calls `on_wait` whenever a connection waits for a lock."""

    def __init__(self):
        super().__init__("waiting", "unix", makedefault=True)
        self.waits = 0
        self.on_wait = lambda: None

    def xSleep(self, microseconds):  # noqa: N802 - SQLite's name
        self.waits += 1
        self.on_wait()
        return microseconds


@pytest.fixture
def disk():
    disk = WaitingDisk()
    yield disk
    disk.unregister()


def write_to_the_coordinator(path):
    with closing(SQLiteCoordinator(path)) as coordinator:
        assert coordinator.txn([], [PutOp("a", b"1")]).succeeded


def write_to_a_database(path, purpose=Purpose.KEEP):
    with closing(Database(path, ["CREATE TABLE t (id)"], purpose)) as database:
        database.do(Context(), lambda tx: tx.execute("INSERT INTO t VALUES (1)"))


def write_to_a_copy(path):
    write_to_a_database(path, Purpose.COPY)


OPENINGS = [write_to_the_coordinator, write_to_a_database, write_to_a_copy]


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
@pytest.mark.parametrize("opening", OPENINGS)
def test_an_opening_waits_for_another_that_is_changing_the_mode(disk, tmp_path, opening, lock):
    """The other one has the locks of a change of the journal's mode; it goes on once this one waits for it."""
    path = tmp_path / "new.db"
    with closing(apsw.Connection(str(path), vfs="unix")) as other:
        other.execute(lock)

        def go_on():
            if other.in_transaction:
                other.execute("ROLLBACK")
                other.execute("PRAGMA journal_mode = WAL")

        disk.on_wait = go_on
        opening(path)
        assert disk.waits >= 1


def test_an_opening_that_waits_in_vain_says_so(disk, tmp_path, monkeypatch):
    monkeypatch.setattr("agola_core.coordinator.sqlite.database._BUSY_MILLISECONDS", 20)
    path = tmp_path / "new.db"
    with closing(apsw.Connection(str(path), vfs="unix")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError, match="locked"):
            write_to_the_coordinator(path)
    write_to_the_coordinator(path)


@pytest.mark.parametrize("step", ["closes", "opens"])
def test_reading_only_while_the_last_writer_closes_or_the_first_opens(tmp_path, monkeypatch, step):
    """The log is gone, or there, once it was looked for: what was committed is read all the same."""
    path = tmp_path / "coordinator.db"
    writers = [SQLiteCoordinator(path)]
    writers[0].txn([], [PutOp("a", b"1")])
    if step == "opens":
        writers.pop().close()
    looks = []
    has_log = read_only._has_log

    def has_log_at_first(path):
        found = has_log(path)
        looks.append(found)
        if len(looks) == 1:
            if step == "closes":
                writers.pop().close()
            else:
                writers.append(SQLiteCoordinator(path))
                writers[0].txn([], [PutOp("b", b"1")])
        return found

    monkeypatch.setattr(read_only, "_has_log", has_log_at_first)
    with closing(read_only.ReadOnlySQLiteCoordinator(path)) as reader:
        assert [item.key for item in reader.list("").items] == (["a"] if step == "closes" else ["a", "b"])
    assert looks[0] is (step == "closes")
    for writer in writers:
        writer.close()


def test_reading_only_while_the_last_writer_closes_after_its_log_was_noted(tmp_path, monkeypatch, caplog):
    path = tmp_path / "coordinator.db"
    writers = [SQLiteCoordinator(path)]
    writers[0].txn([], [PutOp("a", b"1")])

    class Noted(read_only.OpenFiles):
        def __init__(self, path):
            super().__init__(path)
            while writers:
                writers.pop().close()

    monkeypatch.setattr(read_only, "OpenFiles", Noted)
    with closing(read_only.ReadOnlySQLiteCoordinator(path)) as reader:
        assert [item.key for item in reader.list("").items] == ["a"]
    assert not writers
    assert not caplog.records  # nobody is told of a loss that is none
