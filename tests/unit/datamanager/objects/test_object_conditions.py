"""Conditions on objects: `expected` and `if_absent`, decided as the WAL is committed."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

import agola_core
from agola_core import BadRequestError, ConflictError, CorruptionError, Delete, Options, Put
from agola_core.datamanager.format import records
from agola_core.events import Event, EventStore
from agola_core.runtime import faultpoints

QUIET = Options(background=False)


def open_store(path, **options):
    return agola_core.open(path, data_types=["note"], options=Options(background=False, **options))


@pytest.fixture
def dm(tmp_path):
    with open_store(tmp_path) as opened:
        yield opened


def write(dm, data, **conditions):
    return dm.write_wal([Put("note", "a", data, **conditions)])


def test_expected_refuses_after_any_change_by_anybody(dm):
    write(dm, b"1")
    entry = dm.entry("note", "a")
    assert entry.data == b"1"
    write(dm, b"2", expected=entry.version)
    for stale in (Put("note", "a", b"3", expected=entry.version), Delete("note", "a", expected=entry.version)):
        with pytest.raises(ConflictError, match="note 'a' was changed by another writer"):
            dm.write_wal([Put("note", "b", b""), stale])
    assert list(dm.list_objects("note")) == [("a", b"2")]  # all or nothing
    dm.write_wal([Delete("note", "a", expected=dm.entry("note", "a").version)])
    with pytest.raises(ConflictError):
        write(dm, b"4", expected=entry.version)
    assert dm.entry("note", "a") is None


def test_the_version_of_one_object_is_refused_for_another(dm):
    dm.write_wal([Put("note", "a", b"same"), Put("note", "b", b"same")])
    version = dm.entry("note", "a").version
    for wrong in (Put("note", "b", b"2", expected=version), Delete("note", "c", expected=version)):
        with pytest.raises(BadRequestError, match=f"action 0: expected is not a version of note '{wrong.id}'"):
            dm.write_wal([wrong])
    assert dict(dm.list_objects("note")) == {"a": b"same", "b": b"same"}


def test_a_rewrite_with_the_same_bytes_and_a_new_object_are_changes(dm):
    write(dm, b"1")
    entry = dm.entry("note", "a")
    write(dm, b"1")
    with pytest.raises(ConflictError):
        write(dm, b"2", expected=entry.version)
    entry = dm.entry("note", "a")
    dm.write_wal([Delete("note", "a")])
    write(dm, b"1")
    with pytest.raises(ConflictError):
        write(dm, b"2", expected=entry.version)


def test_checkpoints_and_other_objects_are_no_changes(tmp_path):
    with open_store(tmp_path, block_size=60, retain_wals=1) as dm:
        write(dm, b"1")
        before = dm.entry("note", "a")
        dm.write_wal([Put("note", "b", b"1")])
        dm.checkpoint(force=True)
        after = dm.entry("note", "a")
        dm.write_wal([Put("note", "c", b"1")])
        dm.checkpoint(force=True)
        write(dm, b"2", expected=before.version)
        dm.checkpoint(force=True)
        for stale in (before, after):  # of which no WAL in memory tells any longer
            with pytest.raises(ConflictError):
                write(dm, b"3", expected=stale.version)
    with open_store(tmp_path) as dm:
        entry = dm.entry("note", "a")
    with open_store(tmp_path) as dm:
        write(dm, b"3", expected=entry.version)


def test_a_version_outlives_a_recovery_that_left_the_object_as_it_was(tmp_path):
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "a", b"1"), Put("note", "b", b"1")])
        one, other = dm.entry("note", "a"), dm.entry("note", "b")
        dm.write_wal([Put("note", "b", b"2")])
        dm.sync()
    for file in tmp_path.glob("coordinator.db*"):
        file.unlink()
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "a", b"2", expected=one.version)])
        with pytest.raises(ConflictError):
            dm.write_wal([Put("note", "b", b"3", expected=other.version)])


def test_if_absent_creates_once(dm):
    write(dm, b"1", if_absent=True)
    with pytest.raises(ConflictError, match="note 'a' exists already"):
        write(dm, b"2", if_absent=True)
    dm.checkpoint(force=True)
    with pytest.raises(ConflictError):
        write(dm, b"2", if_absent=True)
    dm.write_wal([Delete("note", "a")])
    write(dm, b"2", if_absent=True)
    assert dm.get("note", "a") == b"2"


def test_what_another_process_has_done_is_no_conflict_for_a_writer_who_saw_it(tmp_path):
    with open_store(tmp_path) as dm, open_store(tmp_path) as other:
        write(dm, b"1")
        other.refresh()
        write(other, b"2")
        write(dm, b"3", expected=other.entry("note", "a").version)  # `dm` has not seen it yet
        other.refresh()
        other.write_wal([Delete("note", "a")])
        write(dm, b"4", if_absent=True)


def test_a_writer_that_loses_the_race_for_the_head_is_judged_again(tmp_path):
    with open_store(tmp_path) as dm, open_store(tmp_path) as other:
        write(dm, b"1")
        entry, passed = dm.entry("note", "a"), []

        def overtake(name):
            if name == "commit.before-txn" and not passed:
                passed.append(name)
                write(other, b"2")

        with faultpoints.arm(overtake), pytest.raises(ConflictError):
            write(dm, b"3", expected=entry.version)
        assert dm.get("note", "a") == b"2"


def test_of_many_writers_that_share_transactions_one_wins_each_version(dm):
    write(dm, b"0")

    def add(_):
        while True:
            entry = dm.entry("note", "a")
            try:
                write(dm, b"%d" % (int(entry.data) + 1), expected=entry.version)
            except ConflictError:
                continue
            return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(80)))
    assert dm.get("note", "a") == b"80"


@pytest.mark.parametrize(("backend", "times"), [("sqlite", 100), ("etcd", 20)])
def test_two_processes_lose_no_increment_though_one_names_no_change_group(backend, times, tmp_path, request):
    storage = (tmp_path / "storage").as_uri().replace("file:", "posix:")
    if backend == "etcd":
        coordinator = request.getfixturevalue("agola_etcd").url("increments")
    else:
        coordinator = (tmp_path / "coordinator.db").as_uri().replace("file:", "sqlite:")
    command = [sys.executable, "-m", "tests.support.increments", coordinator, storage, str(times)]
    writers = [
        subprocess.Popen([*command, *group], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for group in ([], ["counters"])
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    with agola_core.open(storage=storage, coordinator=coordinator) as dm:
        assert dm.get("n", "counter") == b"%d" % (2 * times)


def test_conditions_are_not_stored_and_a_retry_with_its_id_returns_the_first_outcome(dm):
    write(dm, b"1")
    version = dm.entry("note", "a").version
    feed = dm.watch(dm.sequence)
    token = dm.write_wal([Put("note", "a", b"2", expected=version)], wal_id="once")
    assert dm.write_wal([Put("note", "a", b"2", expected=version)], wal_id="once") == token
    assert feed.next(0.0).actions == (Put("note", "a", b"2"),)
    actions = (Put("note", "a", b"2", if_absent=True), Delete("note", "b", expected=version))
    stored = [["put", "note", "a", b"2"], ["delete", "note", "b"]]  # as in every release before
    assert msgspec.msgpack.decode(records.encode_actions(actions)) == stored
    assert records.decode_actions(msgspec.msgpack.encode(stored), "") == [Put("note", "a", b"2"), Delete("note", "b")]


def test_objects_with_conditions_go_along_with_events(dm):
    store = EventStore(dm)
    store.append([Event("Opened")], "s", 0, along=[Put("note", "a", b"1", if_absent=True)])
    with pytest.raises(ConflictError, match="exists already"):
        store.append([Event("Opened")], "s", 1, along=[Put("note", "a", b"2", if_absent=True)])
    assert (store.version("s"), dm.get("note", "a")) == (1, b"1")


def test_what_is_no_condition_is_named(dm):
    version = "0123456789abcdef.0000000000001-0000000000001." + "0" * 32
    with pytest.raises(BadRequestError, match="action 1: if_absent"):
        dm.write_wal([Put("note", "b", b""), Put("note", "a", b"", expected=version, if_absent=True)])
    with pytest.raises(BadRequestError, match="action 0: if_absent"):
        write(dm, b"", if_absent="yes")
    for wrong in ("", "1", 7, b"1", version[:-1], version + "0", version.replace("-", ".")):
        with pytest.raises(BadRequestError, match="action 0: expected takes an Entry"):
            write(dm, b"", expected=wrong)
    with pytest.raises(BadRequestError, match="action 0: if_absent"):
        write(dm, b"", if_absent=2)


def test_a_damaged_object_refuses_only_the_writer_who_expects_it(tmp_path):
    with open_store(tmp_path) as dm:
        write(dm, b"1")
        version = dm.entry("note", "a").version
        write(dm, b"2")
        dm.checkpoint(force=True)
        for file in (tmp_path / "storage").rglob("*"):
            if file.is_file() and file.read_bytes().startswith(b"agola-data-1"):
                file.write_bytes(file.read_bytes().replace(b"\0", b"\1"))
        with pytest.raises(CorruptionError):
            write(dm, b"3", expected=version)
        dm.write_wal([Put("note", "b", b"1")])
        assert dm.get("note", "b") == b"1"


def test_get_exists_and_entry_read_the_same_now_and_then(tmp_path):
    with open_store(tmp_path) as dm:
        write(dm, b"1")
        with dm.snapshot() as snapshot:
            write(dm, b"")
            assert snapshot.entry("note", "a").data == b"1"
            assert snapshot.entry("note", "b") is None
        assert (dm.get("note", "a"), dm.get("note", "b"), dm.get("note", "b", b"-")) == (b"", None, b"-")
        assert (dm.exists("note", "a"), dm.exists("note", "b")) == (True, False)
        with agola_core.open(tmp_path, at=agola_core.Sequence(1, 1)) as past:
            assert (past.get("note", "a"), past.exists("note", "b")) == (b"1", False)
            assert past.entry("note", "a").data == b"1"
        for read in (dm.get, dm.exists, dm.entry):
            with pytest.raises(BadRequestError, match="unknown data type"):
                read("other", "a")
