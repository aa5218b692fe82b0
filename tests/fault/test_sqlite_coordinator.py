"""The SQLite coordinator with a failing disk, with processes that die or stall, and across versions and reboots."""

import contextlib
import errno
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import closing
from pathlib import Path

import apsw
import msgspec
import pytest

from agola_core import Options, Put
from agola_core.coordinator import Compare, DeleteOp, KeyValue, PutOp
from agola_core.coordinator.lock import try_lock
from agola_core.coordinator.sqlite import errors as sqlite_errors
from agola_core.coordinator.sqlite import settle as sqlite_outcome
from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator
from agola_core.datamanager import DataManager
from agola_core.errors import (
    CompactedError,
    CorruptionError,
    FormatError,
    OutOfSpaceError,
    UnavailableError,
    UnknownOutcomeError,
)
from agola_core.objectstorage.factory import open_storage

WAIT_SECONDS = 60


# A disk that fails


class FaultyFile(apsw.VFSFile):
    def __init__(self, disk, name, flags):
        super().__init__("unix", name, flags)
        self.disk = disk

    def xWrite(self, data, offset):  # noqa: N802 - SQLite's name
        self.disk.call("write")
        super().xWrite(data, offset)

    def xSync(self, flags):  # noqa: N802
        self.disk.call("sync")
        super().xSync(flags)


class FaultyDisk(apsw.VFS):
    """The real file system of SQLite; the n-th call from `fail` on fails."""

    def __init__(self):
        super().__init__("faulty", "unix", makedefault=True)
        self.kind, self.left, self.times, self.error, self.failed = "", 0, 0, None, 0

    def xOpen(self, name, flags):  # noqa: N802
        return FaultyFile(self, name, flags)

    def fail(self, kind, error, *, nth=1, times=1):
        self.kind, self.left, self.times, self.error, self.failed = kind, nth, times, error, 0

    def call(self, kind):
        if kind == self.kind and self.times:
            self.left -= 1
            if self.left <= 0:
                self.times -= 1
                self.failed += 1
                raise self.error


@pytest.fixture
def disk():
    disk = FaultyDisk()
    yield disk
    disk.kind = ""
    disk.unregister()


@pytest.mark.parametrize(
    ("kind", "error", "raised"),
    [
        ("write", apsw.FullError("disk full"), OutOfSpaceError),
        ("write", apsw.IOError("bad sector"), UnavailableError),
        ("sync", apsw.IOError("bad sector"), UnavailableError),
    ],
)
def test_a_failing_disk_is_a_typed_error_and_the_next_transaction_works(disk, tmp_path, kind, error, raised):
    coordinator = SQLiteCoordinator(tmp_path / "coordinator.db")
    revision = coordinator.txn([], [PutOp("a", b"1")]).revision
    disk.fail(kind, error)
    with pytest.raises(raised):
        coordinator.txn([], [PutOp("a", b"2")])
    assert coordinator.get("a").value == b"1"
    with coordinator.watch("", revision + 1) as watch:
        result = coordinator.txn([Compare("a", revision)], [PutOp("a", b"3")])
        assert (result.succeeded, result.revision) == (True, revision + 1)
        assert watch.next(WAIT_SECONDS).events[0].item.value == b"3"
    coordinator.close()


def after_a_crash(path, copy):
    """Return what a recovery would make of the files as they are: the log counts, the notes of who uses it do not."""
    copy.mkdir()
    for name in (path.name, f"{path.name}-wal"):
        shutil.copy(path.parent / name, copy / name)
    with closing(SQLiteCoordinator(copy / path.name)) as recovered:
        return {item.key: item.value for item in recovered.list("").items}


def test_a_commit_that_was_told_as_failed_does_not_come_back_after_a_crash(disk, tmp_path, monkeypatch):
    """Its pages lie in the log, with the mark of the commit: they must be written over before anybody hears."""
    path = tmp_path / "coordinator.db"
    with closing(SQLiteCoordinator(path)) as coordinator:
        coordinator.txn([], [PutOp("a", b"1")])
        seen = []
        settle = sqlite_outcome.settle

        def look_first(*args):
            seen.append(after_a_crash(path, tmp_path / "before"))
            return settle(*args)

        monkeypatch.setattr("agola_core.coordinator.sqlite.coordinator.settle", look_first)
        disk.fail("sync", apsw.IOError("bad sector"))
        with pytest.raises(UnavailableError, match="bad sector"):
            coordinator.txn([], [PutOp("a", b"2"), PutOp("lock", b"")])
        disk.kind = ""
        assert seen == [{"a": b"2", "lock": b""}]  # this is what makes it unknown
        assert after_a_crash(path, tmp_path / "after") == {"a": b"1"}
        assert coordinator.txn([], [PutOp("b", b"")]).revision == coordinator.get("a").mod_revision + 1


def test_a_commit_whose_outcome_no_disk_tells_is_unknown(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_outcome, "_SETTLE_SECONDS", 0.0)
    with closing(SQLiteCoordinator(tmp_path / "coordinator.db")) as coordinator:
        coordinator.txn([], [PutOp("a", b"1")])
        disk.fail("sync", apsw.IOError("bad sector"), times=2)
        with pytest.raises(UnknownOutcomeError, match="bad sector"):
            coordinator.txn([], [PutOp("a", b"2")])
        disk.kind = ""
        assert coordinator.txn([], [PutOp("a", b"3")]).succeeded
        assert coordinator.get("a").version == 2


def test_what_somebody_else_wrote_in_its_place_is_not_taken_for_it(tmp_path):
    with closing(SQLiteCoordinator(tmp_path / "coordinator.db")) as coordinator:
        revision = coordinator.txn([], [PutOp("a", b"1"), DeleteOp("none"), PutOp("b", b"")]).revision
        items = [(key, coordinator.get(key)) for key in ("a", "b")]
        connection = coordinator._database.writer
        error = apsw.IOError("bad sector")
        assert sqlite_outcome.settle(connection, [(revision, items)], error, "")
        other = [("a", msgspec.structs.replace(items[0][1], value=b"2")), items[1]]
        assert not sqlite_outcome.settle(connection, [(revision, other)], error, "")
        assert not sqlite_outcome.settle(connection, [(revision + 1, items)], error, "")
        assert not sqlite_outcome.settle(connection, [], error, "")


def test_a_statement_that_fails_leaves_nothing(tmp_path, monkeypatch):
    """What is busy, or interrupted, before a COMMIT was not applied."""
    monkeypatch.setattr("agola_core.coordinator.sqlite.database._BUSY_MILLISECONDS", 20)
    path = tmp_path / "coordinator.db"
    with closing(SQLiteCoordinator(path)) as coordinator, closing(apsw.Connection(str(path))) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError, match="locked"):
            coordinator.txn([], [PutOp("a", b"1")])
        other.execute("ROLLBACK")
        writer = coordinator._database.writer
        writer.set_progress_handler(lambda: True, 1)
        with pytest.raises(UnavailableError, match="interrupted"):
            coordinator.txn([], [PutOp("a", b"1")])
        writer.set_progress_handler(None)
        assert coordinator.list("").items == ()
        assert coordinator.txn([], [PutOp("b", b"1")]).succeeded


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_quota_is_no_space(number):
    """SQLite calls it an error of input and output; no file system with quotas can be made here."""
    error = sqlite_errors.explain(apsw.IOError("disk I/O error"), "file", number, has_room=True)
    assert isinstance(error, OutOfSpaceError) is (number != errno.EIO)


def test_the_table_is_the_one_that_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "guarantees.md").read_text()
    for row in sqlite_errors.TABLE:
        assert f"| {row.name} | {row.at_statement} | {row.at_commit} |" in page


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("kind", ["write", "sync"])
def test_commits_outlive_a_disk_that_fails_at_any_call(disk, tmp_path, kind, times):
    """Whatever call fails: an acknowledged WAL is there, a failed one is not, and a retry writes it once."""
    coordinator = SQLiteCoordinator(tmp_path / "coordinator.db")
    storage = open_storage(str(tmp_path / "storage"))
    with DataManager(coordinator, storage, ["note"], Options(background=False)) as dm:
        for nth in range(1, 12):
            disk.fail(kind, apsw.IOError("bad sector"), nth=nth, times=times)
            for number in range(6):
                name = f"{nth:02}-{number}"
                try:
                    dm.write_wal([Put("note", name, b"")], wal_id=name)
                except (UnavailableError, UnknownOutcomeError):
                    disk.kind = ""
                    dm.write_wal([Put("note", name, b"")], wal_id=name)
            disk.kind = ""
        with dm.watch(after=type(dm.sequence)(1, 0)) as feed:
            log = [feed.next(WAIT_SECONDS).actions[0].id for _ in range(dm.sequence.counter)]
        assert log == [f"{nth:02}-{number}" for nth in range(1, 12) for number in range(6)]
    coordinator.close()
    storage.close()


def test_what_is_no_database_or_a_later_one_is_refused(tmp_path):
    (tmp_path / "text.db").write_text("this is no database, but long enough to be taken for one" * 100)
    with pytest.raises(CorruptionError, match=r"text\.db"):
        SQLiteCoordinator(tmp_path / "text.db")
    SQLiteCoordinator(tmp_path / "later.db").close()
    connection = apsw.Connection(str(tmp_path / "later.db"))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(FormatError, match="99"):
        SQLiteCoordinator(tmp_path / "later.db")
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError):
        SQLiteCoordinator(tmp_path / "file" / "coordinator.db")


# Versions and reboots

VERSION_1 = """
CREATE TABLE entry (number INTEGER PRIMARY KEY, key TEXT NOT NULL, created INTEGER NOT NULL,
    version INTEGER NOT NULL, lease INTEGER NOT NULL, value BLOB);
CREATE UNIQUE INDEX entry_key ON entry (key, number);
CREATE INDEX entry_lease ON entry (lease) WHERE lease != 0;
CREATE TABLE lease (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl REAL NOT NULL, deadline REAL NOT NULL,
    boot TEXT NOT NULL);
CREATE TABLE compaction (revision INTEGER NOT NULL);
INSERT INTO compaction VALUES (0);
INSERT INTO entry VALUES (2 << 20, 'a', 2, 1, 0, x'31'), ((2 << 20) + 1, 'b', 2, 1, 0, x'31'),
    (3 << 20, 'a', 2, 2, 0, x'32'), (4 << 20, 'b', 0, 0, 0, NULL);
PRAGMA user_version = 1;
"""


def test_a_database_of_version_1_is_brought_up(tmp_path):
    connection = apsw.Connection(str(tmp_path / "coordinator.db"))
    connection.execute(VERSION_1)
    connection.close()
    for _ in range(2):
        coordinator = SQLiteCoordinator(tmp_path / "coordinator.db")
        assert coordinator.get("a") == KeyValue("a", b"2", 2, 3, 2)
        assert coordinator.get("b") is None
        assert [item.key for item in coordinator.list("", revision=2).items] == ["a", "b"]
        assert [item.key for item in coordinator.list("", revision=4).items] == ["a"]
        coordinator.txn([Compare("c", 0)], [PutOp("c", b"")])
        assert [item.key for item in coordinator.list("").items] == ["a", "c"]
        coordinator.close()


def test_leases_begin_their_time_anew_after_a_reboot(tmp_path):
    """The clock begins at the boot: a deadline of the boot before would lie far ahead, or long past."""
    path = tmp_path / "coordinator.db"
    now = 50_000.0
    before = SQLiteCoordinator(path, clock=lambda: now, boot="first")
    lease = before.grant_lease(10)
    before.txn([], [PutOp("leased", b"", lease)])
    before.close()
    now = 3.0
    after = SQLiteCoordinator(path, clock=lambda: now, boot="second")
    now = 12.0
    after.expire_leases()
    assert after.get("leased") is not None
    same = SQLiteCoordinator(path, clock=lambda: now, boot="second")  # opening again is no reboot
    now = 13.5
    after.expire_leases()
    assert after.get("leased") is None
    for coordinator in (after, same):
        coordinator.close()


# Processes

HOLDER = textwrap.dedent("""
    import sys
    from agola_core.coordinator import PutOp
    from agola_core.coordinator.lock import try_lock
    from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator
    from agola_core.errors import FencedError

    coordinator = SQLiteCoordinator(sys.argv[1])
    lock = try_lock(coordinator, "lock", owner="holder", ttl=1.0)
    print("held", lock.token, flush=True)
    sys.stdin.readline()
    try:
        lock.check()
    except FencedError:
        print("lost", flush=True)
    print(coordinator.txn([lock.fence], [PutOp("guarded", b"old")]).succeeded, flush=True)
""")


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def acquire(coordinator):
    """Return the lock once its holder's lease has ended; the database's own watch tells when."""
    for _ in range(WAIT_SECONDS * 10):
        with coordinator.watch("lock", coordinator.list("").revision + 1) as watch:
            lock = try_lock(coordinator, "lock", owner="next", ttl=30)
            if lock is not None:
                return lock
            watch.next(0.1)
    raise AssertionError("the lock never became free")


def test_the_lock_of_a_killed_process_becomes_free(tmp_path):
    coordinator = SQLiteCoordinator(tmp_path / "coordinator.db")
    holder = start(HOLDER, tmp_path / "coordinator.db")
    token = int(holder.stdout.readline().split()[1])
    assert try_lock(coordinator, "lock", owner="next") is None
    holder.kill()
    holder.communicate()
    with acquire(coordinator) as lock:
        assert lock.token > token
    coordinator.close()


def test_a_process_that_was_paused_past_its_lease_is_fenced(tmp_path):
    coordinator = SQLiteCoordinator(tmp_path / "coordinator.db")
    holder = start(HOLDER, tmp_path / "coordinator.db")
    holder.stdout.readline()
    holder.send_signal(signal.SIGSTOP)
    with acquire(coordinator) as lock:
        coordinator.txn([lock.fence], [PutOp("guarded", b"new")])
        holder.send_signal(signal.SIGCONT)
        output, _ = holder.communicate("go\n")
        assert output.split() == ["lost", "False"]
        assert coordinator.get("guarded").value == b"new"
    coordinator.close()


WRITER = textwrap.dedent("""
    import sys
    from agola_core.coordinator import PutOp
    from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator

    coordinator = SQLiteCoordinator(sys.argv[1])
    for number in range(int(sys.argv[3])):
        coordinator.txn([], [PutOp(f"w/{sys.argv[2]}", b"%d" % number), PutOp(f"other/{number % 7}", b"")])
""")


def test_a_watch_sees_every_revision_once_in_order_while_several_processes_write(tmp_path):
    path, each = tmp_path / "coordinator.db", 200
    coordinator = SQLiteCoordinator(path)
    with coordinator.watch("w/", 1) as watch, coordinator.watch("", 1) as everything:
        processes = [start(WRITER, path, name, each) for name in "ab"]

        def write():
            for number in range(each):
                coordinator.txn([], [PutOp("w/own", b"%d" % number)])

        thread = threading.Thread(target=write)
        thread.start()
        seen = [watch.next(WAIT_SECONDS) for _ in range(3 * each)]
        assert [batch.revision for batch in seen] == sorted({batch.revision for batch in seen})
        for key in ("w/a", "w/b", "w/own"):
            values = [int(event.item.value) for batch in seen for event in batch.events if event.key == key]
            assert values == list(range(each))
        first = everything.next(WAIT_SECONDS).revision
        rest = [everything.next(WAIT_SECONDS).revision for _ in range(3 * each - 1)]
        assert rest == list(range(first + 1, first + 3 * each))
        thread.join()
        for process in processes:
            process.communicate()
        assert watch.next(0) is None
    coordinator.close()


def test_a_commit_while_a_watch_reads_the_past_is_not_skipped(tmp_path, monkeypatch):
    path = tmp_path / "coordinator.db"
    with contextlib.closing(SQLiteCoordinator(path)) as coordinator:
        for number in range(3):
            coordinator.txn([], [PutOp("a", b"%d" % number)])
    with contextlib.closing(SQLiteCoordinator(path)) as coordinator:
        read = coordinator._hub._read_changes

        def read_and_commit(begin, end):
            found = read(begin, end)
            coordinator.txn([], [PutOp("a", b"meanwhile")])
            monkeypatch.undo()
            return found

        monkeypatch.setattr(coordinator._hub, "_read_changes", read_and_commit)
        with coordinator.watch("a", 1) as watch:
            seen = [watch.next(WAIT_SECONDS).events[0].item.value for _ in range(4)]
        assert seen == [b"0", b"1", b"2", b"meanwhile"]


COMPACTOR = textwrap.dedent("""
    import sys
    from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator

    coordinator = SQLiteCoordinator(sys.argv[1])
    coordinator.compact(coordinator.list("").revision)
""")


def test_a_compaction_by_another_process_is_reported_to_watches_that_fell_behind(tmp_path):
    path = tmp_path / "coordinator.db"
    coordinator, other = SQLiteCoordinator(path), SQLiteCoordinator(path)
    with other.watch("", 1) as kept, contextlib.ExitStack() as stack:
        for number in range(20):
            coordinator.txn([], [PutOp("a", b"%d" % number)])
        newest = coordinator.list("").revision
        assert [kept.next(WAIT_SECONDS).revision for _ in range(20)] == list(range(2, newest + 1))
        process = start(COMPACTOR, path)
        process.communicate()
        assert process.returncode == 0
        late = SQLiteCoordinator(path)
        stack.callback(late.close)
        with late.watch("", 5) as watch, pytest.raises(CompactedError) as error:
            watch.next(WAIT_SECONDS)
        assert error.value.oldest == newest
        revision = coordinator.txn([], [PutOp("a", b"on")]).revision
        assert kept.next(WAIT_SECONDS).revision == revision  # whoever was up to date lost nothing
    for one in (coordinator, other):
        one.close()


# Keys that a session takes for new


@pytest.mark.parametrize("order", [1, -1])
def test_keys_of_one_directory_from_two_processes_in_turn(tmp_path, order):
    path = tmp_path / "coordinator.db"
    with closing(SQLiteCoordinator(path)) as one, closing(SQLiteCoordinator(path)) as other:
        names = [f"wals/{number:04d}" for number in range(600)][::order]  # more than wait for the index
        for index, name in enumerate(names):
            writer = (one, other)[index // 7 % 2]
            assert writer.txn([Compare(name, 0)], [PutOp(name, b"1")]).succeeded
            again = (other, one)[index // 5 % 2]
            assert not again.txn([Compare(name, 0)], [PutOp(name, b"2")]).succeeded
        items = [item for start in ("", names[400]) for item in one.list("wals/", start_after=start).items]
        assert all((item.version, item.create_revision) == (1, item.mod_revision) for item in items)
        last = max(names)
        other.txn([], [DeleteOp(last)])
        assert one.txn([Compare(last, 0)], [PutOp(last, b"3")]).succeeded
        assert one.get(last).version == 1
        assert other.txn([Compare(last, one.get(last).mod_revision)], [PutOp(last, b"4")]).succeeded
        assert one.get(last).version == 2
