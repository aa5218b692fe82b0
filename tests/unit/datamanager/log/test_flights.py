"""Batches that are on their way to storage at once, for writers that wait for them."""

import contextlib
import threading

import apsw
import pytest

from agola_core import AgolaError, Durability, Options, Put, RecoveryError
from agola_core.coordinator import PutOp, open_coordinator
from agola_core.datamanager import DataManager
from agola_core.datamanager.background import flights
from agola_core.objectstorage import open_storage

JOIN_SECONDS = 60


class HeldStorage:
    """A real storage that holds batches of WALs until they are let go.

    Attributes:
        real: The storage.
        left: Released for each batch that leaves.
        held: An event for each batch, in the order in which they left; set it to let the batch go.
    """

    def __init__(self, storage):
        self.real = storage
        self.holds = False
        self.left = threading.Semaphore(0)
        self.held = []

    def __getattr__(self, name):
        return getattr(self.real, name)

    def write(self, path, *arguments, **options):
        if self.holds and path.endswith(".wals"):
            gate = threading.Event()
            self.held.append(gate)
            self.left.release()
            assert gate.wait(JOIN_SECONDS)
        return self.real.write(path, *arguments, **options)


@pytest.fixture
def held(tmp_path):
    with (
        contextlib.closing(open_coordinator(str(tmp_path / "coordinator.db"))) as coordinator,
        contextlib.closing(open_storage(str(tmp_path / "storage"))) as real,
    ):
        storage = HeldStorage(real)
        with DataManager(coordinator, storage, ["note"], Options(durability=Durability.STORAGE)) as dm:
            for number in range(2):  # the first batch of a lineage goes a longer way
                dm.write_wal([Put("note", f"first-{number}", b"")])
            storage.holds = True
            yield dm, storage
            storage.holds = False
            for gate in storage.held:
                gate.set()


def write(dm, object_id, data=b""):
    """Write in a thread of its own; return the thread and the list that gets the token."""
    outcome = []

    def work():
        try:
            outcome.append(dm.write_wal([Put("note", object_id, data)]))
        except AgolaError as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, outcome


def leave(storage):
    assert storage.left.acquire(timeout=JOIN_SECONDS)


def test_a_wal_waits_for_no_batch_that_left_without_it(held):
    dm, storage = held
    first, first_outcome = write(dm, "a")
    leave(storage)
    second, second_outcome = write(dm, "b")
    leave(storage)
    storage.held[1].set()
    for thread in (first, second):  # the later batch has the WALs of the earlier one, too
        thread.join(JOIN_SECONDS)
    assert len(first_outcome) == len(second_outcome) == 1
    storage.held[0].set()
    assert dm.sync() == dm.sequence
    assert dm.verify() == []


def test_as_many_batches_leave_as_there_are_threads(held):
    dm, storage = held
    threads = []
    for number in range(flights.FLIGHTS):
        threads.append(write(dm, f"{number}")[0])
        leave(storage)
    threads.append(write(dm, "one more")[0])
    assert len(storage.held) == flights.FLIGHTS
    storage.held[0].set()
    leave(storage)
    storage.holds = False
    for gate in storage.held:
        gate.set()
    for thread in threads:
        thread.join(JOIN_SECONDS)
        assert not thread.is_alive()


def test_a_batch_that_a_later_one_has_overtaken_is_not_recorded_again(held):
    dm, storage = held
    threads = []
    for number in range(3):
        threads.append(write(dm, f"{number}")[0])
        leave(storage)
    before = dm.coordinator.get("dm/control/sync").version
    storage.held[2].set()
    for thread in threads:
        thread.join(JOIN_SECONDS)
        assert not thread.is_alive()
    for gate in storage.held:
        gate.set()
    dm.stop_background_tasks()
    assert dm.coordinator.get("dm/control/sync").version == before + 1
    assert dm.status().synced == str(dm.sequence)


def test_no_batch_leaves_that_would_repeat_much(held, monkeypatch):
    dm, storage = held
    monkeypatch.setattr(flights, "_REPEATED_BYTES", 10_000)
    first, _ = write(dm, "large", bytes(20_000))
    leave(storage)
    large = dm.sequence
    second, outcome = write(dm, "b")
    assert dm.wait_for_change(large, lambda: False, JOIN_SECONDS)
    assert len(storage.held) == 1
    storage.held[0].set()
    leave(storage)  # once the first one has arrived
    assert outcome == []
    storage.held[1].set()
    for thread in (first, second):
        thread.join(JOIN_SECONDS)
    assert len(outcome) == 1


def test_a_writer_hears_that_the_coordinator_went_back_while_its_batch_was_on_its_way(held):
    dm, storage = held
    earlier = {key: dm.coordinator.get(key).value for key in ("dm/control/head", "dm/control/sync")}
    thread, outcome = write(dm, "a")
    leave(storage)
    dm.coordinator.txn([], [PutOp(key, value) for key, value in earlier.items()])
    storage.held[0].set()
    thread.join(JOIN_SECONDS)
    assert [type(error) for error in outcome] == [RecoveryError]
    assert dm.coordinator.get("dm/control/sync").value == earlier["dm/control/sync"]


def test_a_writer_hears_what_the_follower_finds_before_its_batch_has_arrived(held):
    dm, storage = held
    head = dm.coordinator.get("dm/control/head").value
    thread, outcome = write(dm, "a")
    leave(storage)
    dm.coordinator.txn([], [PutOp("dm/control/head", head)])
    thread.join(JOIN_SECONDS)
    assert [type(error) for error in outcome] == [RecoveryError]


def test_a_wal_that_a_restored_coordinator_has_lost_is_not_acknowledged_for_another_in_its_place(held, tmp_path):
    dm, storage = held
    path = str(tmp_path / "coordinator.db")
    with (
        contextlib.closing(apsw.Connection(path)) as database,
        contextlib.closing(apsw.Connection(str(tmp_path / "backup.db"))) as saved,
    ):
        with saved.backup("main", database, "main") as backup:
            backup.step()
        thread, outcome = write(dm, "lost")
        leave(storage)
        with database.backup("main", saved, "main") as backup:
            backup.step()
    with (
        contextlib.closing(open_coordinator(path)) as restored,
        contextlib.closing(open_storage(str(tmp_path / "storage"))) as real,
    ):
        with DataManager(restored, real, ["note"], Options(background=False)) as other:
            other.write_wal([Put("note", "other", b"")])
        storage.held[0].set()
        thread.join(JOIN_SECONDS)
        assert [type(error) for error in outcome] == [RecoveryError]


def test_a_store_closes_while_its_batches_are_on_their_way(held):
    dm, storage = held
    thread, outcome = write(dm, "a")
    leave(storage)
    closing = threading.Thread(target=dm.close)
    closing.start()
    storage.holds = False
    storage.held[0].set()
    for one in (thread, closing):
        one.join(JOIN_SECONDS)
        assert not one.is_alive()
    assert len(outcome) <= 1
