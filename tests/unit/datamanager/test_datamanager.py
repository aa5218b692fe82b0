"""What an application sees of its store."""

import io
import threading
from itertools import pairwise
from pathlib import Path

import pytest

import agola_core
from agola_core import (
    BadRequestError,
    ClosedError,
    CompactedError,
    ConflictError,
    Delete,
    ExportFormat,
    FencedError,
    NotFoundError,
    Options,
    Put,
    RecoveryError,
    Sequence,
    TokenExpiredError,
)
from agola_core.datamanager.sstable.memtable import Memtable

QUIET = Options(background=False)


def open_store(path, **options):
    return agola_core.open(path, data_types=["note", "other"], options=Options(background=False, **options))


def contents(dm, data_type="note"):
    return dict(dm.list_objects(data_type))


def test_what_is_written_is_read_back_also_after_reopening(tmp_path):
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "a", b"1"), Put("note", "b", b""), Put("other", "a", b"x")])
        dm.write_wal([Delete("note", "a"), Delete("note", "never")])
        assert contents(dm) == {"b": b""}
    with open_store(tmp_path) as dm:
        assert contents(dm) == {"b": b""}
        assert dm.read_object("other", "a")[0] == b"x"
        with pytest.raises(NotFoundError, match="note 'a'"):
            dm.read_object("note", "a")


def test_the_last_action_on_an_id_wins(tmp_path):
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "a", b"1"), Delete("note", "a"), Put("note", "a", b"2")])
        assert dm.read_object("note", "a")[0] == b"2"
        dm.write_wal([Put("note", "a", b"3"), Delete("note", "a")])
        assert contents(dm) == {}


def test_a_moved_change_group_refuses_the_write(tmp_path):
    with open_store(tmp_path) as dm:
        token = dm.change_groups_token(["g", "h"])
        assert token.groups == {"g": 0, "h": 0}
        after = dm.write_wal([Put("note", "a", b"1")], token)
        with pytest.raises(ConflictError, match="'g'"):
            dm.write_wal([Put("note", "a", b"2")], token)
        assert dm.read_object("note", "a", ["g", "h"]) == (b"1", after)
        dm.write_wal([Put("note", "a", b"3")], after)
        assert dm.read_object("note", "a")[0] == b"3"


def test_writers_on_different_groups_never_refuse_each_other(tmp_path):
    with open_store(tmp_path) as dm:
        one, two = dm.change_groups_token(["one"]), dm.change_groups_token(["two"])
        dm.write_wal([Put("note", "1", b"")], one)
        dm.write_wal([Put("note", "2", b"")], two)
        assert set(contents(dm)) == {"1", "2"}


def test_a_token_survives_its_text_form(tmp_path):
    with open_store(tmp_path) as dm:
        token = dm.write_wal([Put("note", "a", b"1")], dm.change_groups_token(["g"]))
        assert agola_core.ChangeGroupsToken.decode(token.encode()) == token
        with pytest.raises(BadRequestError):
            agola_core.ChangeGroupsToken.decode("nonsense!")


def test_a_token_of_another_store_is_refused(tmp_path):
    with open_store(tmp_path / "one") as one, open_store(tmp_path / "two") as two:
        with pytest.raises(TokenExpiredError):
            two.write_wal([Put("note", "a", b"")], one.change_groups_token(["g"]))
        assert contents(two) == {}


def test_a_retry_with_the_same_wal_id_returns_the_first_outcome(tmp_path):
    with open_store(tmp_path) as dm:
        token = dm.change_groups_token(["g"])
        first = dm.write_wal([Put("note", "a", b"1")], token, wal_id="k")
        dm.write_wal([Put("note", "a", b"2")])
        assert dm.write_wal([Put("note", "a", b"1")], token, wal_id="k") == first
        assert dm.read_object("note", "a")[0] == b"2"
        with pytest.raises(BadRequestError, match="used before"):
            dm.write_wal([Put("note", "a", b"other")], wal_id="k")


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([], "at least one"),
        ([Put("unknown", "a", b"")], "unknown data type 'unknown'"),
        ([Put("note", "", b"")], "an id of 0 bytes"),
        ([Put("note", "é" * 513, b"")], "an id of 1026 bytes"),
        ([Put("note", "\ud800", b"")], "not valid Unicode"),
        ([Put("note", "a", "text")], "must be bytes"),
        ([("put", "note", "a")], "expected Put or Delete"),
        ([Put("note", "a", b"x" * 2000)], "at most 1000"),
        ([Delete("note", "a")] * 11, "at most 10"),
    ],
)
def test_malformed_actions_are_refused_and_nothing_is_written(tmp_path, actions, message):
    with open_store(tmp_path, max_wal_bytes=1000, max_wal_actions=10) as dm:
        before = dm.sequence
        with pytest.raises(BadRequestError, match=message):
            dm.write_wal(actions)
        assert dm.sequence == before


@pytest.mark.parametrize("group", ["", "a/b", "x" * 257])
def test_malformed_change_groups_are_refused(tmp_path, group):
    with open_store(tmp_path) as dm, pytest.raises(BadRequestError):
        dm.change_groups_token([group])


def test_checkpoints_change_nothing_that_is_seen(tmp_path):
    with open_store(tmp_path, block_size=64, file_size=256, inline_limit=50) as dm:
        expected = {}
        for number in range(120):
            object_id = f"id{number % 37:02}"
            if number % 5 == 0:
                dm.write_wal([Delete("note", object_id)])
                expected.pop(object_id, None)
            else:
                data = str(number).encode() * (number % 20)
                dm.write_wal([Put("note", object_id, data)])
                expected[object_id] = data
            if number % 11 == 0:
                assert dm.checkpoint(force=True)
            assert contents(dm) == expected
        dm.checkpoint(force=True)
        for object_id, data in expected.items():
            assert dm.read_object("note", object_id)[0] == data
        middle = sorted(expected)[len(expected) // 2]
        assert [key for key, _ in dm.list_objects("note", start_after=middle)] == [
            key for key in sorted(expected) if key > middle
        ]
        assert len(list(dm.list_objects("note", limit=3))) == 3
    with open_store(tmp_path) as dm:
        assert contents(dm) == expected


def test_a_scan_sees_one_state_while_writes_and_checkpoints_go_on(tmp_path):
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", f"{number:03}", b"old") for number in range(100)])
        scan = dm.list_objects("note")
        first = next(scan)
        dm.write_wal([Put("note", f"{number:03}", b"new") for number in range(100)] + [Put("note", "0005", b"new")])
        dm.checkpoint(force=True)
        dm.collect_garbage()
        assert dict([first, *scan]) == {f"{number:03}": b"old" for number in range(100)}


def test_the_coordinator_may_be_lost_once_the_log_is_in_storage(tmp_path):
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "a", b"1")])
        dm.checkpoint(force=True)
        dm.write_wal([Put("note", "b", b"2"), Delete("note", "a")])
        dm.sync()
        old = dm.change_groups_token(["g"])
    for file in tmp_path.glob("coordinator.db*"):
        file.unlink()
    with open_store(tmp_path) as dm:
        assert contents(dm) == {"b": b"2"}
        assert dm.sequence > Sequence.parse(old.sequence)
        with pytest.raises(TokenExpiredError):
            dm.write_wal([Put("note", "c", b"")], old)
        dm.write_wal([Put("note", "c", b"3")])
    with open_store(tmp_path) as dm:
        assert contents(dm) == {"b": b"2", "c": b"3"}


def test_a_coordinator_older_than_the_storage_is_refused_until_recovered(tmp_path):
    backup = tmp_path / "backup"
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "a", b"1")])
        dm.sync()
    (backup).write_bytes((tmp_path / "coordinator.db").read_bytes())
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "b", b"2")])
        dm.sync()
    (tmp_path / "coordinator.db").write_bytes(backup.read_bytes())
    with pytest.raises(RecoveryError, match="older than the storage"):
        open_store(tmp_path)
    with agola_core.open(tmp_path, data_types=["note"], options=QUIET, recover=True) as dm:
        assert set(contents(dm)) == {"a", "b"}


def test_halves_of_different_stores_do_not_open(tmp_path):
    open_store(tmp_path / "one").close()
    open_store(tmp_path / "two").close()
    with pytest.raises(RecoveryError, match="mixed up"):
        agola_core.open(
            data_types=["note"],
            storage=str(tmp_path / "one/storage"),
            coordinator=str(tmp_path / "two/coordinator.db"),
        )


def test_the_feed_gives_every_wal_once_from_a_place_on(tmp_path):
    with open_store(tmp_path, inline_limit=20, retain_wals=5) as dm:
        start = dm.sequence
        for number in range(30):
            dm.write_wal([Put("note", str(number), b"x" * number)])
        dm.checkpoint(force=True)
        dm.clean_up()
        with dm.watch(after=start) as feed:
            events = [feed.next(0) for _ in range(30)]
            assert [event.actions for event in events] == [
                (Put("note", str(number), b"x" * number),) for number in range(30)
            ]
            assert all(one.sequence == two.previous for one, two in pairwise(events))
            assert feed.next(0) is None
            dm.write_wal([Delete("note", "1")])
            assert feed.next(1).actions == (Delete("note", "1"),)
    with open_store(tmp_path, retain_wals=5) as dm, dm.watch(after=str(start)) as feed:
        assert [event.sequence for event in (feed.next(0) for _ in range(30))] == [e.sequence for e in events]


def test_the_feed_says_when_its_place_is_no_longer_kept(tmp_path):
    with open_store(tmp_path, retain_wals=0, retain_manifests=1, grace_period=0) as dm:
        start = dm.sequence
        for number in range(10):
            dm.write_wal([Put("note", str(number), b"")])
            dm.checkpoint(force=True)
        dm.clean_up()
        assert {garbage.reason for garbage in dm.collect_garbage(dry_run=True)}
        dm.collect_garbage()
        assert dm.collect_garbage() == []
        assert len(contents(dm)) == 10
    with open_store(tmp_path) as dm:
        with pytest.raises(CompactedError, match="snapshot"):
            dm.watch(after=start)
        assert len(contents(dm)) == 10


@pytest.mark.parametrize("form", list(ExportFormat))
def test_an_export_imports_into_another_store(tmp_path, form):
    with open_store(tmp_path / "one") as one, open_store(tmp_path / "two") as two:
        one.write_wal([Put("note", "ü/1", b"\x00\xff"), Put("note", "b", b""), Put("other", "x", b"1" * 3000)])
        two.write_wal([Put("note", "gone", b"")])
        old, feed = two.change_groups_token(["g"]), two.watch()
        exported = io.BytesIO()
        one.export(exported, form)
        exported.seek(0)
        assert two.import_(exported, dry_run=True).entries == {"note": 2, "other": 1}
        assert contents(two) == {"gone": b""}
        exported.seek(0)
        assert two.import_(exported).entries == {"note": 2, "other": 1}
        assert contents(two) == contents(one)
        assert contents(two, "other") == contents(one, "other")
        with pytest.raises(TokenExpiredError):
            two.write_wal([Put("note", "z", b"")], old)
        with pytest.raises(FencedError):
            feed.next(0)
        again = io.BytesIO()
        two.export(again, form)
        if form is ExportFormat.AGOLA:
            assert again.getvalue() == exported.getvalue()


def test_a_damaged_export_changes_nothing(tmp_path):
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", f"{number}", b"data") for number in range(5)])
        exported = io.BytesIO()
        dm.export(exported)
        whole = exported.getvalue()
        lines = whole.splitlines(keepends=True)
        damaged = [
            b"",
            whole[:-1],
            whole[: len(whole) // 2],
            b"".join(lines[:-1]),
            b"".join([lines[0], lines[2], lines[1], *lines[3:]]),
            b"".join([lines[0], lines[1], *lines[1:]]),
            whole.replace(b"note", b"nope"),
            whole + b"more",
            b"[" * 100_000,
            b'{"id":"a","data_type":"note","data":"\xff"}',
            b'{"id":"b","data_type":"note"}{"id":"a","data_type":"note"}',
        ]
        for stream in damaged:
            with pytest.raises(BadRequestError, match="nothing was imported"):
                dm.import_(io.BytesIO(stream))
            assert len(contents(dm)) == 5


def test_an_import_is_refused_while_another_has_the_store_open(tmp_path):
    with open_store(tmp_path) as one, open_store(tmp_path):
        exported = io.BytesIO()
        one.export(exported)
        exported.seek(0)
        with pytest.raises(ConflictError, match="others have the store open"):
            one.import_(exported)


def test_two_datamanagers_on_one_store_see_each_other(tmp_path):
    with open_store(tmp_path) as one, open_store(tmp_path) as two:
        token = one.change_groups_token(["g"])
        one.write_wal([Put("note", "a", b"1")], token)
        with pytest.raises(ConflictError):
            two.write_wal([Put("note", "a", b"2")], token)
        two.write_wal([Put("note", "b", b"2")])
        two.checkpoint(force=True)
        one.refresh()
        assert contents(one) == contents(two) == {"a": b"1", "b": b"2"}


def test_use_after_close_is_one_clear_error(tmp_path):
    dm = open_store(tmp_path)
    feed = dm.watch()
    dm.close()
    dm.close()
    for use in (lambda: dm.write_wal([Put("note", "a", b"")]), dm.snapshot, dm.status, lambda: feed.next(0)):
        with pytest.raises(ClosedError):
            use()


@pytest.mark.parametrize("types", [[], "note", ["a", "a"], [""], ["a/b"], [1]])
def test_malformed_data_types_are_refused(tmp_path, types):
    with pytest.raises(BadRequestError):
        agola_core.open(tmp_path, data_types=types)


def test_a_store_needs_a_place(tmp_path: Path):
    with pytest.raises(BadRequestError):
        agola_core.open(data_types=["a"])
    (tmp_path / "file").write_text("")
    with pytest.raises(BadRequestError, match="not a directory"):
        agola_core.open(tmp_path / "file", data_types=["a"])
    with pytest.raises(BadRequestError, match="durability"):
        agola_core.open(tmp_path, data_types=["a"], durability="maybe")


def test_any_number_of_changes_of_one_object_is_let_go_of():
    memtable = Memtable()
    for counter in range(1, 50_000):  # each change holds the one before it
        memtable.apply(counter, [Put("note", "a", b"")])
    memtables = [memtable]
    del memtable
    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=memtables.clear)  # a recursion through all of them would end the process
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
