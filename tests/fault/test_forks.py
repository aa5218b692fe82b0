"""Forks of a process that uses stores: a child waits for nobody, and opens what it wants anew."""

import contextlib
import os
import signal
import threading
import traceback

import pytest

import agola_core
from agola_core import ClosedError, Options, Put
from agola_core.coordinator.factory import open_coordinator
from agola_core.coordinator.lock import try_lock
from agola_core.coordinator.port import PutOp
from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator
from agola_core.db import Database
from agola_core.readdb import ReadDB
from agola_core.runservice.archive.projection import DATA_TYPES
from agola_core.runservice.inprocess import InProcessDirectory
from agola_core.runservice.model.requests import RunQuery
from agola_core.runservice.service import RunService
from agola_core.runtime.context import Context

CHILD_SECONDS = 60
BEFORE = "was opened before a fork: open it again in the child"


def in_child(function, *arguments, meanwhile=lambda: None):
    """Run a function in a forked child, and another here; fail with the child's traceback, or when it hangs."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(CHILD_SECONDS)  # a child that waits for ever ends
        try:
            function(*arguments)
            os._exit(0)
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-4000:])
            os._exit(1)
    os.close(writing)
    meanwhile()
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode()
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code != -signal.SIGALRM, "the child hung"
    assert code == 0, said


class Notes:
    """A projection."""

    name = "notes"
    version = 1
    data_types = ("note",)
    schema = "CREATE TABLE note (id TEXT PRIMARY KEY)"

    def apply(self, tx, actions):
        tx.executemany("INSERT OR REPLACE INTO note VALUES (?)", [(action.id,) for action in actions])


@pytest.fixture
def busy(tmp_path):
    """A store that four threads write to, that others read, and a readdb that follows."""
    ended, started = threading.Event(), threading.Barrier(8)
    with (
        agola_core.open(tmp_path / "store", data_types=["note"], options=Options(sync_interval=0.01)) as dm,
        ReadDB(dm, tmp_path / "read.db", [Notes()]) as readdb,
    ):

        def repeat(work):
            work(0)
            started.wait()
            number = 1
            while not ended.is_set():
                work(number)
                number += 1

        def write(writer):
            return lambda number: dm.write_wal([Put("note", f"{writer}-{number % 100}", b"x" * 100)])

        def query(_):
            readdb.read(Context(), lambda tx: list(tx.rows("SELECT count(*) FROM note")))

        works = [
            write(0),
            write(1),
            write(2),
            write(3),
            query,
            lambda _: dm.status(),
            lambda _: dm.coordinator.get("a"),
        ]
        threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        started.wait()
        yield dm, readdb, ended.set
        ended.set()
        for thread in threads:
            thread.join()


def refused(*calls):
    for call in calls:
        with pytest.raises(ClosedError, match=BEFORE):
            call()


def use_the_parents(dm, readdb, feed, watch, snapshot):
    refused(
        lambda: dm.write_wal([Put("note", "child", b"")]),
        lambda: dm.read_object("note", "0-1"),
        lambda: list(dm.list_objects("note")),
        lambda: dm.change_groups_token(["a"]),
        dm.refresh,
        dm.status,
        dm.sync,
        dm.checkpoint,
        dm.collect_garbage,
        dm.verify,
        dm.watch,
        feed.next,
        lambda: next(iter(feed)),
        lambda: dm.coordinator.get("a"),
        lambda: dm.coordinator.txn([], []),
        lambda: dm.coordinator.watch("a", 1),
        lambda: try_lock(dm.coordinator, "lock", owner="child"),
        watch.next,
        lambda: readdb.read(Context(), lambda tx: list(tx.rows("SELECT 1"))),
        lambda: readdb.wait_for("0000000000001-0000000000001"),
        readdb.catch_up,
        readdb.rebuild,
    )
    for opened in (feed, watch, snapshot, readdb, dm, dm.coordinator):
        opened.close()


def use_its_own(path):
    with agola_core.open(path / "store", data_types=["note"]) as dm:
        dm.write_wal([Put("note", f"child-{os.getpid()}", b"")])
        dm.sync()
        with ReadDB(dm, path / "child.db", [Notes()]) as readdb:
            readdb.wait_for(dm.write_wal([Put("note", "child", b"")]), CHILD_SECONDS)


@pytest.mark.parametrize("number", range(15))
def test_no_child_of_a_busy_process_hangs(busy, number):
    dm, readdb, _ = busy
    with dm.watch() as feed, dm.coordinator.watch("x", 1) as watch, dm.snapshot() as snapshot:
        in_child(use_the_parents, dm, readdb, feed, watch, snapshot)


@pytest.mark.parametrize("number", range(5))
def test_a_child_of_a_busy_process_opens_the_store_anew(busy, tmp_path, number):
    """The writers are at work while it forks; afterwards they leave the child a turn."""
    dm, _, rest = busy
    in_child(use_its_own, tmp_path, meanwhile=rest)
    dm.refresh()
    assert sum(name.startswith("child-") for name, _ in dm.list_objects("note")) == 1


def test_a_child_goes_on_when_its_parent_has_closed_the_store(tmp_path):
    """The child has file locks of its own: nobody resets the log under it."""
    dm = agola_core.open(tmp_path / "store", data_types=["note"])
    dm.write_wal([Put("note", "parent", b"")])
    (from_child, to_parent), (from_parent, to_child) = os.pipe(), os.pipe()

    def child():
        with agola_core.open(tmp_path / "store", data_types=["note"]) as own:
            own.write_wal([Put("note", "one", b"")])
            os.write(to_parent, b"1")
            assert os.read(from_parent, 1) == b"1"
            own.write_wal([Put("note", "two", b"")])

    thread = threading.Thread(target=in_child, args=(child,))
    thread.start()
    os.read(from_child, 1)
    dm.close()
    with agola_core.open(tmp_path / "store", data_types=["note"]) as other:
        os.write(to_child, b"1")
        thread.join()
        other.refresh()
        assert [name for name, _ in other.list_objects("note")] == ["one", "parent", "two"]


def test_a_child_of_a_run_service_is_told(tmp_path):
    with (
        agola_core.open(tmp_path / "store", data_types=DATA_TYPES) as dm,
        RunService(dm, tmp_path / "read.db", InProcessDirectory()) as service,
        agola_core.open(tmp_path / "store", data_types=DATA_TYPES, at=dm.sequence) as past,
        service.watch_events() as events,
    ):

        def child():
            refused(
                events.next,
                lambda: service.get_run("a"),
                lambda: service.list_runs(RunQuery()),
                lambda: service.change_groups_token(["a"]),
                lambda: past.list_objects("run"),
            )
            for opened in (events, service, past, dm):
                opened.close()

        in_child(child)


def test_a_fork_inside_a_transaction_writes_nothing_in_the_child(tmp_path):
    database = Database(tmp_path / "db", ["CREATE TABLE t (x)"])

    def child(tx):
        refused(lambda: tx.execute("INSERT INTO t VALUES ('child')"))
        with pytest.raises(agola_core.UnavailableError, match="forked off in the middle of a transaction"):
            Database(tmp_path / "db")

    def work(tx):
        tx.execute("INSERT INTO t VALUES ('parent')")
        in_child(child, tx)

    database.do(Context(), work)
    assert database.read(Context(), lambda tx: list(tx.rows("SELECT x FROM t"))) == [("parent",)]
    in_child(lambda: Database(tmp_path / "db", ["CREATE TABLE t (x)"]).close())
    database.close()


def test_what_a_child_inherits_ends_without_a_checkpoint(tmp_path):
    coordinator = SQLiteCoordinator(tmp_path / "coordinator.db")
    log = tmp_path / "coordinator.db-wal"
    size = log.stat().st_size
    in_child(coordinator.close)
    in_child(lambda: None)
    assert log.stat().st_size == size > 0
    coordinator.close()
    assert not log.exists()


def test_a_child_of_a_process_with_a_bucket_has_connections_of_its_own(agola_s3):
    with contextlib.closing(agola_core.open_storage(agola_s3.url("forks"))) as storage:
        storage.write("a", b"1")

        def child():
            refused(lambda: storage.read("a"), lambda: storage.write("b", b""), lambda: list(storage.list()))
            storage.close()
            with contextlib.closing(agola_core.open_storage(agola_s3.url("forks"))) as own:
                own.write("b", own.read("a"))

        in_child(child)
        assert storage.read("b") == b"1"


def test_a_child_of_a_process_with_etcd_is_told(agola_etcd):
    with contextlib.closing(open_coordinator(agola_etcd.url("forks"))) as coordinator:
        coordinator.txn([], [PutOp("a", b"1")])
        with coordinator.watch("a", coordinator.get("a").mod_revision) as watch:  # others compact this etcd

            def child():
                refused(
                    watch.next,
                    lambda: coordinator.get("a"),
                    lambda: coordinator.txn([], [PutOp("a", b"2")]),
                    lambda: coordinator.grant_lease(10),
                )
                for opened in (watch, coordinator):
                    opened.close()

            in_child(child)
            assert watch.next(CHILD_SECONDS).events[0].item.value == b"1"
        assert coordinator.get("a").value == b"1"
