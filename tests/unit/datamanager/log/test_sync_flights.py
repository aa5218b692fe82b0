"""Several batches of WALs on their way at once: whichever arrives first, there is no gap, and nobody waits in vain."""

import threading

import pytest

import agola_core
from agola_core import Durability, Options, Put, Sequence
from agola_core.coordinator import open_coordinator
from agola_core.datamanager import DataManager


class Held:
    """A storage that holds the writes of WAL batches until they are let go, each by its number."""

    def __init__(self, storage):
        self._storage = storage
        self.arrived = threading.Semaphore(0)
        self.gates = []

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def write(self, path, data, **options):
        if path.endswith(".wals"):
            gate = threading.Event()
            self.gates.append(gate)
            self.arrived.release()
            assert gate.wait(30)
        return self._storage.write(path, data, **options)


@pytest.fixture
def held(tmp_path):
    return Held(agola_core.open_storage(tmp_path / "storage"))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_later_batch_does_not_wait_for_an_earlier_one(tmp_path, held, order):
    coordinator = open_coordinator(str(tmp_path / "coordinator.db"))
    options = Options(durability=Durability.STORAGE, sync_interval=3600, checkpoint_interval=3600)
    with DataManager(coordinator, held, ["n"], options) as dm:
        writers = []
        for number in range(2):  # the second commits while the first one's batch is on its way
            writer = threading.Thread(target=dm.write_wal, args=([Put("n", str(number), b"x")],))
            writer.start()
            writers.append(writer)
            assert held.arrived.acquire(timeout=30)
        held.gates[order[0]].set()
        writers[order[0]].join(30)
        assert not writers[order[0]].is_alive()
        if order[0] == 1:  # its batch holds the first one's WAL too
            writers[0].join(30)
            assert not writers[0].is_alive()
        held.gates[order[1]].set()
        writers[order[1]].join(30)
        assert dm.status().synced == str(dm.sequence)
        assert dm.verify() == []
    coordinator.close()
    for file in tmp_path.glob("coordinator.db*"):
        file.unlink()
    with agola_core.open(tmp_path, data_types=["n"]) as dm:  # everything acknowledged is in storage
        assert dict(dm.list_objects("n")) == {"0": b"x", "1": b"x"}


def test_what_nobody_waits_for_goes_with_the_next_batch(tmp_path, held):
    coordinator = open_coordinator(str(tmp_path / "coordinator.db"))
    options = Options(sync_bytes=100, sync_interval=3600, checkpoint_interval=3600)
    with DataManager(coordinator, held, ["n"], options) as dm:
        first = Sequence.parse(dm.write_wal([Put("n", "first", b"x" * 200)]).sequence)
        assert held.arrived.acquire(timeout=30)
        dm.write_wal([Put("n", "small", b"x")])  # while the first one's batch is on its way
        held.gates[0].set()
        assert dm._store.log.wait_synced(first, lambda: None, 30)
        third = Sequence.parse(dm.write_wal([Put("n", "third", b"x" * 200)]).sequence)
        assert held.arrived.acquire(timeout=30)
        held.gates[1].set()
        assert dm._store.log.wait_synced(third, lambda: None, 30)
        assert sum(info.path.endswith(".wals") for info in held.list()) == 2
    coordinator.close()
