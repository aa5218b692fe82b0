"""Batches to storage, what waits for them, and the chain of predecessors that every step checks."""

import threading

import pytest

import agola_core
from agola_core import CorruptionError, DeadlineError, Durability, Options, Put, UnavailableError
from agola_core.coordinator import DeleteOp, PutOp
from agola_core.datamanager.format import batches, records
from agola_core.runtime import faultpoints
from agola_core.runtime.faultpoints import InjectedFaultError
from agola_core.sequence import Sequence

JOIN_SECONDS = 60


def open_store(path, **options):
    return agola_core.open(path, data_types=["note"], options=Options(**{"background": False, **options}))


def batch_paths(dm):
    return [info.path for info in dm.storage.list("lineages/") if info.path.endswith(".wals")]


def test_many_wals_go_to_storage_in_one_object(tmp_path):
    with open_store(tmp_path) as dm:
        for number in range(300):
            dm.write_wal([Put("note", f"{number}", b"x")])
        assert batch_paths(dm) == []
        assert dm.sync() == dm.sequence
        (path,) = batch_paths(dm)
        assert [record.counter for record in batches.read_batch(dm.storage, path)] == list(range(1, 301))
        assert dm.sync() == dm.sequence  # nothing to do: nothing written
        assert batch_paths(dm) == [path]


@pytest.mark.parametrize("fresh", [False, True], ids=["from memory", "from the coordinator"])
def test_a_batch_holds_the_frames_that_the_coordinator_holds(tmp_path, fresh):
    with open_store(tmp_path, inline_limit=50) as dm, open_store(tmp_path) as other:
        for number in range(5):
            dm.write_wal([Put("note", f"{number}", b"x" * 30 * number)], dm.change_groups_token([f"g{number}"]))
        frames = [item.value for item in dm.coordinator.list("dm/wals/").items]
        (other if fresh else dm).sync()
        (path,) = batch_paths(dm)
        assert dm.storage.read(path) == batches.encode_batch(frames)


@pytest.mark.parametrize("point", ["sync.before-batch", "sync.before-txn"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_sync_that_failed_at_any_point_is_resumed(tmp_path, point, times):
    with open_store(tmp_path) as dm:
        for number in range(5):
            dm.write_wal([Put("note", f"{number}", b"")])
        for _ in range(times):
            with faultpoints.arm(faultpoints.trigger(f"{point}:1:raise")), pytest.raises(InjectedFaultError):
                dm.sync()
            assert dm.status().synced == str(Sequence(1, 0))
        dm.write_wal([Put("note", "5", b"")])
        assert dm.sync().counter == 6
        found = batches.read_chain(dm.storage, f"lineages/{str(Sequence(1, 0))[:13]}-{dm.lineage}/", Sequence(1, 0))
        assert [record.counter for record in found] == [1, 2, 3, 4, 5, 6]


def test_two_instances_sync_the_same_wals_without_harm(tmp_path):
    with open_store(tmp_path) as one, open_store(tmp_path) as two:
        one.write_wal([Put("note", "a", b"")])

        def overtake(name):
            if name == "sync.before-txn" and threading.current_thread() is threading.main_thread():
                two.write_wal([Put("note", "b", b"")])
                thread = threading.Thread(target=two.sync)
                thread.start()
                thread.join(JOIN_SECONDS)

        with faultpoints.arm(overtake):
            one.sync()
        assert one.status().synced == two.status().synced == str(Sequence(1, 2))
        assert len(batch_paths(one)) == 2
        assert one.verify() == []


# Durability


class FlakyStorage:
    """A real storage whose batches cannot be written while `broken`."""

    def __init__(self, storage):
        self._storage = storage
        self.broken = threading.Event()
        self.refused = threading.Semaphore(0)

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def write(self, path, *arguments, **options):
        if self.broken.is_set() and path.endswith(".wals"):
            self.refused.release()
            raise UnavailableError("the storage does not answer")
        return self._storage.write(path, *arguments, **options)


@pytest.fixture
def flaky(tmp_path):
    from agola_core.coordinator import open_coordinator
    from agola_core.datamanager import DataManager
    from agola_core.objectstorage.factory import open_storage

    coordinator = open_coordinator(str(tmp_path / "coordinator.db"))
    storage = FlakyStorage(open_storage(str(tmp_path / "storage")))
    managers = []

    def open_one(**options):
        chosen = Options(durability=Durability.STORAGE, **options)
        managers.append(DataManager(coordinator, storage, ["note"], chosen))
        return managers[-1]

    yield storage, open_one
    storage.broken.clear()
    for manager in managers:
        manager.close()
    coordinator.close()


@pytest.mark.parametrize("background", [True, False])
def test_storage_durability_returns_once_the_wal_is_there(flaky, background):
    _, open_one = flaky
    dm = open_one(background=background)
    token = dm.write_wal([Put("note", "a", b"1")])
    assert dm.wal_status(token.sequence) is not agola_core.WalStatus.COMMITTED
    assert len(batch_paths(dm)) == 1


def test_storage_durability_waits_while_the_sync_fails_and_returns_when_it_resumes(flaky):
    storage, open_one = flaky
    dm = open_one()
    storage.broken.set()
    outcomes = []
    threads = [
        threading.Thread(target=lambda number=number: outcomes.append(dm.write_wal([Put("note", f"{number}", b"")])))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for _ in range(3):
        assert storage.refused.acquire(timeout=JOIN_SECONDS)
    assert outcomes == []
    storage.broken.clear()
    for thread in threads:
        thread.join(JOIN_SECONDS)
    assert sorted(token.sequence for token in outcomes) == [str(Sequence(1, counter)) for counter in range(1, 9)]


def test_storage_durability_says_so_when_the_time_is_over(flaky):
    storage, open_one = flaky
    dm = open_one()
    storage.broken.set()
    with pytest.raises(DeadlineError, match="committed, but is not in object storage yet"):
        dm.write_wal([Put("note", "a", b"1")], wal_id="key", timeout=0.05)
    assert dm.read_object("note", "a")[0] == b"1"
    storage.broken.clear()
    again = dm.write_wal([Put("note", "a", b"1")], wal_id="key")
    assert dm.sequence.counter == 1
    assert dm.wal_status(again.sequence) is not agola_core.WalStatus.COMMITTED


def test_without_loops_a_failed_sync_is_told_and_a_retry_resumes_it(flaky):
    storage, open_one = flaky
    dm = open_one(background=False)
    storage.broken.set()
    with pytest.raises(UnavailableError, match="is committed, but is not in object storage yet: the storage does"):
        dm.write_wal([Put("note", "a", b"1")], wal_id="key")
    storage.broken.clear()
    token = dm.write_wal([Put("note", "a", b"1")], wal_id="key")
    assert dm.sequence.counter == 1
    assert dm.wal_status(token.sequence) is agola_core.WalStatus.COMMITTED_STORAGE


# The chain


def test_a_wal_that_is_missing_in_the_coordinator_is_an_error_wherever_it_is_met(tmp_path):
    with open_store(tmp_path) as dm, open_store(tmp_path) as behind:
        for number in range(4):
            dm.write_wal([Put("note", f"{number}", b"")])
        dm.coordinator.txn([], [DeleteOp("dm/wals/" + str(Sequence(1, 2)))])
        with pytest.raises(CorruptionError, match="follows 0000000000001-0000000000002, not"):
            behind.refresh()
        with pytest.raises(CorruptionError, match="does not follow"):
            behind.sync()
        with pytest.raises(CorruptionError):
            open_store(tmp_path)
        assert dm.sync() == dm.sequence  # who made them still has them


def test_a_wal_of_another_chain_is_never_taken_for_the_next(tmp_path):
    with open_store(tmp_path) as dm, open_store(tmp_path) as behind:
        for number in range(3):
            dm.write_wal([Put("note", f"{number}", b"")])
        key = "dm/wals/" + str(Sequence(1, 3))
        record = records.decode_wal(dm.coordinator.get(key).value, key)
        forged = type(record)(1, 3, 1, record.wal_id, record.time, record.groups, record.actions)
        dm.coordinator.txn([], [PutOp(key, records.encode_wal(forged))])
        with pytest.raises(CorruptionError, match="follows 0000000000001-0000000000001, not"):
            behind.refresh()
        with pytest.raises(CorruptionError, match="does not follow"):
            behind.sync()


def test_a_gap_between_batches_stops_a_recovery(tmp_path):
    with open_store(tmp_path) as dm:
        for number in range(3):
            dm.write_wal([Put("note", f"{number}", b"")])
            dm.sync()
        dm.storage.delete(sorted(batch_paths(dm))[1])
    for file in tmp_path.glob("coordinator.db*"):
        file.unlink()
    with pytest.raises(CorruptionError, match="no WAL follows 0000000000001-0000000000001"):
        open_store(tmp_path)


def test_a_wal_of_a_later_format_is_refused(tmp_path):
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "a", b"")])
        key = "dm/wals/" + str(Sequence(1, 1))
        record = records.decode_wal(dm.coordinator.get(key).value, key)
        later = type(record)(1, 1, 0, record.wal_id, record.time, (), record.actions, None, 3)
        dm.coordinator.txn([], [PutOp(key, records.encode_wal(later))])
    with pytest.raises(agola_core.FormatError, match=r"WAL in .* has format 3, newer than 2"):
        open_store(tmp_path)


def test_a_coordinator_that_goes_back_is_noticed_by_the_next_sync(tmp_path):
    """The control keys of an earlier state come back, as when a snapshot is restored under a running process."""
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "a", b"")])
        earlier = {key: dm.coordinator.get(key).value for key in ("dm/control/head", "dm/control/sync")}
        dm.write_wal([Put("note", "b", b"")])
        dm.coordinator.txn([], [PutOp(key, value) for key, value in earlier.items()])
        with pytest.raises(agola_core.RecoveryError, match="went back in time"):
            dm.sync()
