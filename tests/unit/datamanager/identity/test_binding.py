"""The record of a store's coordinator in its storage: another one, or one that was set back, is noticed at opening."""

import pytest

import agola_core
from agola_core import Options, Put
from agola_core.coordinator import PutOp, open_coordinator
from agola_core.errors import RecoveryError

QUIET = Options(background=False)


def open_store(path, **options):
    return agola_core.open(path, data_types=["note"], options=QUIET, **options)


def only(path, pattern):
    (found,) = path.glob(pattern)
    return found


def binding(path):
    return only(path / "storage", "data/lineages/*/coordinator.json")


def change_beside_the_log(path):
    """What a run service does: it writes keys of its own, and no WAL."""
    coordinator = open_coordinator(str(path / "coordinator.db"))
    coordinator.txn([], [PutOp("run/active", b"")])
    coordinator.close()


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "a", b"1")])
        dm.checkpoint(force=True)
    return tmp_path


def test_a_coordinator_set_back_without_a_trace_in_the_log_is_noticed(store):
    before = (store / "coordinator.db").read_bytes()
    with open_store(store) as dm:
        change_beside_the_log(store)
        dm.checkpoint(force=True)
    (store / "coordinator.db").write_bytes(before)
    with pytest.raises(RecoveryError, match=r"went back from revision .* agola-core recover"):
        open_store(store)
    assert any("went back" in finding.message for finding in agola_core.verify(store))
    with open_store(store, recover=True) as dm:
        assert dict(dm.list_objects("note")) == {"a": b"1"}
    with open_store(store) as dm:
        dm.write_wal([Put("note", "b", b"2")])
        assert dm.verify() == []


def test_loops_write_the_revision_down_when_they_end(store):
    before = (store / "coordinator.db").read_bytes()
    with agola_core.open(store, data_types=["note"]):
        change_beside_the_log(store)
    (store / "coordinator.db").write_bytes(before)
    with pytest.raises(RecoveryError, match="went back from revision"):
        open_store(store)


def test_a_coordinator_that_has_the_keys_of_another_is_noticed(store):
    (store / "coordinator.db").rename(store / "old.db")
    old, copy = open_coordinator(str(store / "old.db")), open_coordinator(str(store / "coordinator.db"))
    for _ in range(20):
        copy.txn([], [PutOp("filler", b"")])
    copy.txn([], [PutOp(item.key, item.value) for item in old.list("dm/").items])
    old.close()
    copy.close()
    with pytest.raises(RecoveryError, match=r"another one \(sqlite .*recover=True"):
        open_store(store)
    assert any("another one" in finding.message for finding in agola_core.verify(store))
    with open_store(store, recover=True) as dm:
        assert dict(dm.list_objects("note")) == {"a": b"1"}


def test_two_coordinators_that_took_one_storage_at_the_same_epoch_are_noticed(store):
    """Each was empty when it was opened, and never saw the other's lineage."""
    data = store / "storage/data/lineages"
    coordinators = [str(store / name) for name in ("one.db", "two.db")]
    kept = {path.name for path in data.iterdir()}
    for coordinator in coordinators:
        with agola_core.open(
            storage=str(store / "storage"), coordinator=coordinator, data_types=["note"], options=QUIET
        ):
            pass
        hidden = [path for path in data.iterdir() if path.name not in kept]
        for path in hidden:
            path.rename(store / path.name)
    for path in store.glob("0*-*"):
        path.rename(data / path.name)
    for coordinator in coordinators:
        with pytest.raises(RecoveryError, match="two coordinators have taken this storage"):
            agola_core.open(storage=str(store / "storage"), coordinator=coordinator, data_types=["note"], options=QUIET)


def test_a_storage_without_the_record_takes_the_coordinator_as_its_own(store):
    binding(store).unlink()
    open_store(store).close()
    assert b"sqlite" in binding(store).read_bytes()


def test_a_damaged_record_is_named_and_repaired(store):
    path = binding(store)
    path.write_bytes(path.read_bytes().replace(b"sqlite", b"sqlitf"))
    with pytest.raises(agola_core.CorruptionError, match=r"coordinator\.json"):
        open_store(store)
    (finding,) = agola_core.verify(store)
    assert finding.path.endswith("coordinator.json")
    assert [repair.path for repair in agola_core.repair(store)] == [finding.path]
    assert agola_core.verify(store) == []
    open_store(store).close()


def test_commits_and_syncs_do_not_write_it(store):
    with open_store(store) as dm:
        before = binding(store).read_bytes()
        for number in range(10):
            dm.write_wal([Put("note", f"{number}", b"")])
            dm.sync()
        dm.checkpoint(force=True)
        assert binding(store).read_bytes() == before
    assert binding(store).read_bytes() != before


def test_who_only_reads_does_not_write_it(store):
    before = binding(store).read_bytes()
    with open_store(store) as dm:
        assert dict(dm.list_objects("note")) == {"a": b"1"}
    assert binding(store).read_bytes() == before
