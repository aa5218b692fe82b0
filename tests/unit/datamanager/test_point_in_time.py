"""A store as it stood: every retained state is read exactly, and what is gone says so."""

import io
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

import agola_core
from agola_core import (
    BadRequestError,
    ClosedError,
    CompactedError,
    CorruptionError,
    Delete,
    NotFoundError,
    Options,
    Put,
    Sequence,
)
from agola_core.datamanager.manager import DataManager
from agola_core.datamanager.sstable.manifest import decode_manifest, encode_manifest

SMALL = Options(background=False, inline_limit=24, block_size=100, file_size=300, retain_wals=2, grace_period=0)


def open_store(path, **more):
    return agola_core.open(path, data_types=["note"], options=SMALL, **more)


def read(path, at):
    with agola_core.open(path, data_types=["note"], options=SMALL, at=at) as past:
        found = dict(past.list_objects("note"))
        for key, value in found.items():
            assert past.read_object("note", key)[0] == value
        return found


@pytest.fixture
def states(tmp_path):
    """A store with checkpoints in between, and what it was after each WAL."""
    seen = {}
    with open_store(tmp_path) as dm:
        expected = {}
        for number in range(1, 25):
            key = f"k{number % 7}"
            if number % 5 == 0:
                dm.write_wal([Delete("note", key)])
                expected.pop(key, None)
            else:
                dm.write_wal([Put("note", key, b"%d" % number * number)])
                expected[key] = b"%d" % number * number
            seen[dm.sequence] = dict(expected)
            if number % 6 == 0:
                dm.checkpoint(force=True)
                dm.clean_up()
            elif number % 4 == 0:
                dm.sync()
    return seen


def test_every_state_is_read_at_its_sequence(tmp_path, states):
    for sequence, expected in states.items():
        assert read(tmp_path, sequence) == expected
        assert read(tmp_path, str(sequence)) == expected
    assert read(tmp_path, Sequence(1, 0)) == {}


def test_the_same_is_read_with_the_coordinator_lost(tmp_path, states):
    for file in tmp_path.glob("coordinator.db*"):
        file.unlink()
    for sequence, expected in states.items():
        assert read(tmp_path, sequence) == expected
    assert not list(tmp_path.glob("coordinator.db*"))


def test_a_past_store_reads_and_exports_and_writes_nothing(tmp_path, states):
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "storage/data").rglob("*"))
    sequence = list(states)[7]
    with agola_core.open(tmp_path, data_types=["note"], at=sequence) as past:
        assert past.sequence == sequence
        assert dict(past.snapshot().scan("note")) == states[sequence]
        exported = io.BytesIO()
        assert past.export(exported).sequence == str(sequence)
        with pytest.raises(NotFoundError, match="did not exist at"):
            past.read_object("note", "never")
        with pytest.raises(BadRequestError, match="unknown data type"):
            past.list_objects("other")
        assert not hasattr(past, "write_wal")
    with pytest.raises(ClosedError):
        past.list_objects("note")
    past.close()
    after = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "storage/data").rglob("*"))
    assert after == before
    exported.seek(0)
    with open_store(tmp_path / "copy") as copy:
        copy.import_(exported)
        assert dict(copy.list_objects("note")) == states[sequence]


def test_collections_of_others_spare_what_a_past_store_reads(tmp_path, states):
    sequence = list(states)[7]
    with (
        agola_core.open(tmp_path, data_types=["note"], options=SMALL, at=sequence) as past,
        agola_core.open(
            tmp_path,
            data_types=["note"],
            options=Options(background=False, retain_manifests=1, retain_wals=0, grace_period=0),
        ) as dm,
    ):
        scan = past.list_objects("note")
        first = next(scan)
        for number in range(5):
            dm.write_wal([Put("note", "k1", b"new%d" % number)])
            dm.checkpoint(force=True)
            dm.clean_up()
            dm.collect_garbage()
        assert dict([first, *scan]) == dict(past.list_objects("note")) == states[sequence]
        past.close()
        dm.collect_garbage()
        oldest = dm.checkpoints()[0].sequence
        with pytest.raises(CompactedError, match="no longer kept; the oldest is") as caught:
            read(tmp_path, sequence)
        assert caught.value.oldest == oldest
        assert read(tmp_path, oldest) == dict(dm.list_objects("note"))


def test_checkpoints_lists_what_can_be_read(tmp_path, states):
    with open_store(tmp_path) as dm:
        listed = dm.checkpoints()
        assert [item.origin for item in listed] == ["create"] + ["checkpoint"] * 4
        assert listed[-1].sequence == dm.status().checkpointed
        for item in listed[1:]:
            assert read(tmp_path, item.sequence) == states[Sequence.parse(item.sequence)]


def test_the_state_before_an_import_stays_readable(tmp_path, states):
    last = list(states)[-1]
    with open_store(tmp_path) as dm, open_store(tmp_path / "other") as other:
        dm.checkpoint(force=True)
        other.write_wal([Put("note", "imported", b"1")])
        exported = io.BytesIO()
        other.export(exported)
        exported.seek(0)
        dm.import_(exported)
        dm.collect_garbage()
        assert dict(dm.list_objects("note")) == {"imported": b"1"}
        assert read(tmp_path, last) == states[last]
        assert read(tmp_path, dm.sequence) == {"imported": b"1"}
        for _ in range(SMALL.retain_manifests):
            dm.write_wal([Put("note", "imported", b"2")])
            dm.checkpoint(force=True)
        dm.collect_garbage()
        with pytest.raises(CompactedError):
            read(tmp_path, last)
        assert dm.verify() == []
        assert dm.collect_garbage(dry_run=True) == []


def test_a_time_reads_what_was_committed_until_then(tmp_path):
    now = [1_000_000.0]
    coordinator, storage = agola_core.embedded.open_backends(tmp_path)
    with DataManager(coordinator, storage, ["note"], SMALL, clock=lambda: now[0]) as dm:
        for number in range(10):
            now[0] += 60
            dm.write_wal([Put("note", "k", b"%d" % number)])
            if number % 4 == 3:
                dm.checkpoint(force=True)
    coordinator.close()
    storage.close()
    start = datetime.fromtimestamp(1_000_000, UTC)
    for number in range(10):
        for seconds in (0, 59):
            assert read(tmp_path, start + timedelta(seconds=60 * (number + 1) + seconds)) == {"k": b"%d" % number}
    assert read(tmp_path, start) == {}
    assert read(tmp_path, start + timedelta(days=9000)) == {"k": b"9"}
    assert read(tmp_path, (start + timedelta(seconds=130)).isoformat()) == {"k": b"1"}
    with pytest.raises(CompactedError, match="no longer kept"):
        read(tmp_path, start - timedelta(seconds=1))


def test_a_damaged_checkpoint_is_passed_over(tmp_path, states):
    sequence = list(states)[-1]
    newest = max((tmp_path / "storage/data").rglob("manifests/*"))
    newest.write_bytes(b"nothing")
    assert read(tmp_path, sequence) == states[sequence]
    for path in (tmp_path / "storage/data").rglob("manifests/*"):
        path.write_bytes(b"nothing")
    with pytest.raises(CorruptionError, match="digest of the record"):
        read(tmp_path, sequence)


@pytest.mark.parametrize("at", ["", "yesterday", "2019-07-01T00:00:00", 5, datetime(2019, 7, 1)])
def test_a_moment_that_is_none_is_refused(tmp_path, at):
    with pytest.raises(BadRequestError, match="at="):
        read(tmp_path, at)


def test_a_wal_that_never_was_is_named(tmp_path, states):
    newest = list(states)[-1]
    for absent in (newest.next(), Sequence(7, 1)):
        with pytest.raises(BadRequestError, match=f"no WAL has the sequence {absent}"):
            read(tmp_path, absent)


def test_no_store_means_no_past_and_nothing_is_created(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(NotFoundError, match="no store"):
            read(path, Sequence(1, 1))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadRequestError, match="by its storage"):
        agola_core.open(data_types=["note"], at=Sequence(1, 1))


def test_an_overwritten_coordinator_does_not_hide_the_past(tmp_path, states):
    """A coordinator that lost keys needs a recovery; the past is read from storage by naming it alone."""
    sequence = list(states)[3]
    with agola_core.open(data_types=["note"], storage=str(tmp_path / "storage"), at=sequence) as past:
        assert dict(past.list_objects("note")) == states[sequence]
    with agola_core.open(tmp_path, data_types=["note"], options=SMALL, recover=True) as dm:
        assert dict(dm.list_objects("note")) == states[list(states)[-1]]
        assert read(tmp_path, sequence) == states[sequence]


def test_a_stale_checkpoint_of_the_same_number_hides_nothing(tmp_path, states):
    """A checkpointer that was paused past its lease may leave one; the WALs after it may be gone."""
    root = tmp_path / "storage/data"
    older, newest = sorted(root.glob("lineages/*/manifests/*"))[-2:]
    stale = decode_manifest(older.read_bytes(), "older")
    current = decode_manifest(newest.read_bytes(), "newest")
    stale = msgspec.structs.replace(stale, number=current.number)
    newest.with_name(f"{current.number:020}-{'f' * 16}.json").write_bytes(encode_manifest(stale))
    for batch in root.glob("lineages/*/wals/*"):
        if Sequence.parse(batch.name[28:55]) <= current.sequence:
            batch.unlink()
    last = list(states)[-1]
    assert read(tmp_path, current.sequence) == states[current.sequence]
    for file in tmp_path.glob("coordinator.db*"):
        file.unlink()
    with open_store(tmp_path) as dm:
        assert dict(dm.list_objects("note")) == states[last]
