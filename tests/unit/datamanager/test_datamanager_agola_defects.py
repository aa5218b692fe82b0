"""What went wrong in Agola 0.2's datamanager, each defect with a test that would fail on it here."""

import threading
import time
from datetime import UTC, datetime

import pytest

import agola_core
from agola_core import (
    BadRequestError,
    ConflictError,
    CorruptionError,
    Delete,
    NotFoundError,
    Options,
    Put,
    RecoveryError,
    UnavailableError,
)
from agola_core.datamanager.manager import DataManager
from agola_core.runtime import faultpoints
from agola_core.runtime.faultpoints import InjectedFaultError

TINY = {"block_size": 100, "file_size": 300, "inline_limit": 60}


def open_store(path, types=("note", "other"), **options):
    return agola_core.open(path, data_types=types, options=Options(background=False, **options))


def contents(dm, data_type="note"):
    return dict(dm.list_objects(data_type))


def lose_coordinator(path):
    for file in path.glob("coordinator.db*"):
        file.unlink()


# Reads and tokens


def test_every_object_of_split_files_is_found_and_none_twice(tmp_path):
    """An id equal to a file's last was missed; offsets were not reset for each split file."""
    expected = {f"{number:03}": b"%d" % number * 20 for number in range(100)}
    with open_store(tmp_path, **TINY) as dm:
        dm.write_wal([Put(name, key, value) for key, value in expected.items() for name in ("note", "other")])
        dm.checkpoint(force=True)
        assert dm.status().data_files > 5
        for name in ("note", "other"):
            assert [key for key, _ in dm.list_objects(name)] == sorted(expected)
            assert {key: dm.read_object(name, key)[0] for key in expected} == expected


def test_a_pending_delete_is_seen_at_once(tmp_path):
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "a", b"1"), Put("note", "b", b"2")])
        dm.checkpoint(force=True)
        dm.write_wal([Delete("note", "a")])
        for _ in range(2):
            with pytest.raises(NotFoundError):
                dm.read_object("note", "a")
            assert contents(dm) == {"b": b"2"}
            dm.checkpoint(force=True)


def test_the_last_action_of_a_wal_on_an_id_wins(tmp_path):
    with open_store(tmp_path) as dm:
        dm.write_wal(
            [Put("note", "a", b"first"), Put("note", "a", b"last"), Put("note", "b", b""), Delete("note", "b")]
        )
        for _ in range(2):
            assert contents(dm) == {"a": b"last"}
            assert dm.read_object("note", "a")[0] == b"last"
            dm.checkpoint(force=True)


def test_a_token_is_never_newer_than_the_data_that_comes_with_it(tmp_path):
    """The change group was published before the WAL's data was fetched: an update with a fresh token was lost."""
    options = Options(inline_limit=10)
    with (
        agola_core.open(tmp_path, data_types=["note"], options=options) as writer,
        agola_core.open(tmp_path, data_types=["note"], options=options) as reader,
    ):
        written = {}
        seen = []
        done = threading.Event()
        token = writer.write_wal([Put("note", "n", b"0" * 100)], writer.change_groups_token(["g"]))
        written[token.groups["g"]] = 0
        reader.refresh()

        def read():
            while not done.is_set():
                data, got = reader.read_object("note", "n", ["g"])
                seen.append((got.groups["g"], int(data)))

        thread = threading.Thread(target=read)
        thread.start()
        for number in range(1, 60):
            token = writer.write_wal([Put("note", "n", b"%0100d" % number)], token)
            written[token.groups["g"]] = number
        done.set()
        thread.join()
        assert seen
        assert all(number >= written[revision] for revision, number in seen)


def test_a_store_that_is_opened_under_writes_shows_one_state(tmp_path):
    with open_store(tmp_path, **TINY) as writer:
        stop = threading.Event()

        def write():
            number = 0
            while not stop.is_set():
                number += 1
                writer.write_wal([Put("note", key, b"%d" % number) for key in "abc"])
                if number % 10 == 0:
                    writer.checkpoint(force=True)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(15):
                with open_store(tmp_path) as dm, dm.snapshot() as snapshot:
                    values = {int(data) for _, data in snapshot.scan("note")}
                    assert values <= {snapshot.sequence.counter}
        finally:
            stop.set()
            thread.join()


def test_a_follower_that_fell_behind_a_compaction_keeps_nothing_stale(tmp_path):
    with open_store(tmp_path, retain_wals=0) as one, open_store(tmp_path) as two:
        one.write_wal([Put("note", key, b"old") for key in "abc"])
        two.refresh()
        one.write_wal([Put("note", "a", b"new"), Delete("note", "b")])
        one.checkpoint(force=True)
        one.clean_up()
        one.coordinator.compact(one.change_groups_token([]).revision)
        two.refresh()
        assert contents(two) == {"a": b"new", "c": b"old"}
        assert two.sequence == one.sequence


def test_one_failed_fetch_skips_nothing(tmp_path, monkeypatch):
    with open_store(tmp_path, inline_limit=10) as one, open_store(tmp_path) as two:
        for number in range(5):
            one.write_wal([Put("note", f"{number}", b"x" * 50)])
        read, failures = two.storage.read, iter([False, False, True])

        def failing(path, *arguments):
            if path.startswith("payloads/") and next(failures, False):
                raise UnavailableError("the storage is away")
            return read(path, *arguments)

        monkeypatch.setattr(two.storage, "read", failing)
        with pytest.raises(UnavailableError):
            two.refresh()
        two.refresh()
        assert contents(two) == contents(one)
        assert two.sequence == one.sequence


def test_a_data_type_that_is_not_declared_is_refused_in_writes_and_carried_by_checkpoints(tmp_path):
    with open_store(tmp_path) as both, open_store(tmp_path, ["note"]) as one:
        both.write_wal([Put("other", "o", b"1"), Put("note", "n", b"1")])
        with pytest.raises(BadRequestError, match="unknown data type 'other'"):
            one.write_wal([Put("other", "o", b"2")])
        one.refresh()
        one.checkpoint(force=True)
        one.write_wal([Put("note", "n", b"2")])
        one.checkpoint(force=True)
    with open_store(tmp_path, ["note"]) as one:
        assert contents(one) == {"n": b"2"}
    with open_store(tmp_path) as both:
        assert contents(both, "other") == {"o": b"1"}


def test_tokens_do_not_age_by_what_others_write(tmp_path):
    with open_store(tmp_path, retain_wals=0) as dm:
        token = dm.write_wal([Put("note", "mine", b"1")], dm.change_groups_token(["mine"]))
        for number in range(150):
            dm.write_wal([Put("note", f"{number}", b"")], dm.change_groups_token([f"g{number % 7}"]))
        dm.checkpoint(force=True)
        dm.clean_up()
        dm.coordinator.compact(dm.change_groups_token([]).revision)
        dm.write_wal([Put("note", "mine", b"2")], token)
        with pytest.raises(ConflictError):
            dm.write_wal([Put("note", "mine", b"3")], token)


# Commit, checkpoint, recovery


def test_the_payload_of_a_refused_commit_is_collected(tmp_path):
    with open_store(tmp_path, inline_limit=10, grace_period=0) as dm:
        token = dm.change_groups_token(["g"])
        dm.write_wal([Put("note", "a", b"x" * 50)], token)
        with pytest.raises(ConflictError):
            dm.write_wal([Put("note", "a", b"y" * 50)], token)
        assert len(list(dm.storage.list("payloads/"))) == 2
        assert [garbage.reason for garbage in dm.collect_garbage()] == ["no retained WAL names this payload"]
        assert len(list(dm.storage.list("payloads/"))) == 1
        assert dm.verify() == []


def test_a_data_file_in_the_place_of_another_is_never_read_as_it(tmp_path):
    with open_store(tmp_path, **TINY) as dm:
        dm.write_wal([Put("note", f"{number:03}", b"%03d" % number * 10) for number in range(30)])
        dm.checkpoint(force=True)
    one, two, *_ = sorted((tmp_path / "storage/data/data").iterdir())
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    with open_store(tmp_path) as dm:
        wrong = 0
        for number in range(30):
            try:
                assert dm.read_object("note", f"{number:03}")[0] == b"%03d" % number * 10
            except CorruptionError:
                wrong += 1
        assert wrong


def test_a_first_start_that_ended_at_any_step_is_resumed(tmp_path):
    points = [point for point in faultpoints.declared() if point.startswith("lineage.")]
    for index, point in enumerate(points):
        path = tmp_path / f"{index}"
        with faultpoints.arm(faultpoints.trigger(f"{point}:1:raise")), pytest.raises(InjectedFaultError):
            open_store(path)
        with open_store(path) as dm:
            dm.write_wal([Put("note", "a", b"1")])
            dm.checkpoint(force=True)
        lose_coordinator(path)
        with open_store(path) as dm:
            assert contents(dm) == {"a": b"1"}


@pytest.mark.parametrize("kind", ["manifests/*.json", "wals/*.wals"])
def test_an_empty_object_is_named_as_damaged(tmp_path, kind):
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "a", b"1")])
        dm.sync()
    for file in tmp_path.glob(f"storage/data/lineages/*/{kind}"):
        file.write_bytes(b"")
    lose_coordinator(tmp_path)
    with pytest.raises(CorruptionError, match="lineages/"):
        open_store(tmp_path)


def test_more_wals_than_the_coordinator_keeps_are_replayed_in_their_order(tmp_path):
    with open_store(tmp_path, retain_wals=100) as dm:
        for number in range(1, 151):
            dm.write_wal([Put("note", "same", b"%d" % number), Put("note", f"{number}", b"")])
            if number == 120:
                dm.checkpoint(force=True)
                dm.clean_up()
        dm.sync()
        expected = contents(dm)
        assert expected["same"] == b"150"
    with open_store(tmp_path) as dm:
        assert contents(dm) == expected
    lose_coordinator(tmp_path)
    with open_store(tmp_path) as dm:
        assert contents(dm) == expected


def test_a_sync_writes_one_object_for_many_wals(tmp_path, monkeypatch):
    with open_store(tmp_path) as dm:
        written = []
        write = dm.storage.write
        monkeypatch.setattr(dm.storage, "write", lambda path, data, **more: written.append(path) or write(path, data))
        for number in range(100):
            dm.write_wal([Put("note", f"{number}", b"x")])
        assert written == []
        dm.sync()
        assert len(written) == 1
        dm.sync()
        assert len(written) == 1


def test_checkpoints_without_end_leave_a_bounded_storage(tmp_path):
    with open_store(tmp_path, retain_manifests=3, retain_wals=5, grace_period=0, inline_limit=10) as dm:
        sizes = []
        for number in range(40):
            dm.write_wal([Put("note", f"{number % 4}", b"x" * 100)])
            dm.checkpoint(force=True)
            dm.clean_up()
            dm.collect_garbage()
            sizes.append(len(list(dm.storage.list())))
        assert max(sizes[20:]) <= max(sizes[:20]) + 2
        assert len(dm.checkpoints()) == 3
        listed = []
        original = dm.storage.list
        dm.storage.list = lambda *arguments, **more: listed.append(arguments) or original(*arguments, **more)
        for number in range(4):
            dm.read_object("note", f"{number}")
        assert listed == []


def test_a_clock_that_goes_back_orders_nothing(tmp_path):
    clock = [1_800_000_000.0]
    sequences = []
    for step in (0.0, -1.0, -86400.0, -10 * 365 * 86400.0, 0.0):
        clock[0] += step
        coordinator, storage = agola_core.embedded.open_backends(tmp_path)
        with DataManager(coordinator, storage, ["note"], Options(background=False), clock=lambda: clock[0]) as dm:
            for _ in range(2):
                dm.write_wal([Put("note", "clock", b"%f" % clock[0]), Put("note", f"{len(sequences)}", b"")])
                sequences.append(dm.sequence)
                dm.checkpoint(force=True)
            dm.sync()
        coordinator.close()
        storage.close()
        lose_coordinator(tmp_path)
    assert sequences == sorted(set(sequences))
    assert sequences == sorted(sequences, key=str)
    with open_store(tmp_path) as dm:
        assert contents(dm)["clock"] == b"%f" % clock[0]
        assert len(contents(dm)) == 1 + len(sequences)
        assert datetime.fromtimestamp(clock[0], UTC).year < 2020


def test_an_old_change_is_checkpointed_though_few_wait(tmp_path):
    options = Options(checkpoint_interval=0.05, checkpoint_wals=1000)
    with agola_core.open(tmp_path, data_types=["note"], options=options) as dm:
        dm.write_wal([Put("note", "a", b"1")])
        deadline = time.monotonic() + 60
        while dm.status().uncheckpointed_wals:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_restored_coordinator_is_refused_and_recovered_without_loss(tmp_path):
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "a", b"1")])
        dm.sync()
    backup = {file.name: file.read_bytes() for file in tmp_path.glob("coordinator.db*")}
    with open_store(tmp_path) as dm:
        for number in range(20):
            dm.write_wal([Put("note", f"{number}", b"later")])
        dm.checkpoint(force=True)
        dm.write_wal([Delete("note", "a")])
        dm.sync()
        expected = contents(dm)
    lose_coordinator(tmp_path)
    for name, data in backup.items():
        (tmp_path / name).write_bytes(data)
    for _ in range(2):
        with pytest.raises(RecoveryError, match=r"recover=True"):
            open_store(tmp_path)
    with agola_core.open(tmp_path, data_types=["note"], options=Options(background=False), recover=True) as dm:
        assert contents(dm) == expected
        assert dm.verify() == []
    with open_store(tmp_path) as dm:
        assert contents(dm) == expected
