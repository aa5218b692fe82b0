"""Every storage call of every procedure fails, once and for good: no loss, a typed error, healthy again after."""

import io
import shutil

import pytest

import agola_core
from agola_core import AgolaError, ConflictError, Options, Put, UnavailableError
from agola_core.coordinator import open_coordinator
from agola_core.datamanager import DataManager
from agola_pytest.faults.faulty_storage import Fault, FaultyStorage

OPTIONS = Options(
    background=False,
    inline_limit=40,
    block_size=200,
    file_size=600,
    retain_wals=2,
    retain_manifests=1,
    grace_period=0,
    lock_ttl=60,
)
CONTENT = {f"{number:03}": b"x" * number for number in range(1, 41)}


class Store:
    """A store on a storage that fails when told to, and what was acknowledged of it."""

    def __init__(self, path):
        self.path = path
        self.storage = FaultyStorage(agola_core.open_storage(path / "storage"))
        self.acknowledged = dict(CONTENT)
        self.in_doubt = {}
        self.dm = None

    def open(self):
        coordinator = open_coordinator(str(self.path / "coordinator.db"))
        try:
            self.dm = DataManager(coordinator, self.storage, ["n"], OPTIONS)
        except BaseException:
            coordinator.close()
            raise

    def close(self):
        if self.dm is not None:
            self.dm.close()
            self.dm.coordinator.close()
            self.dm = None

    def write(self, key, data):
        self.in_doubt[key] = data
        self.dm.write_wal([Put("n", key, data)])
        self.acknowledged[key] = self.in_doubt.pop(key)

    def check(self):
        """Open the store anew; everything acknowledged is there, and nothing that nobody wrote."""
        self.open()
        found = dict(self.dm.list_objects("n"))
        extra = {key: found.pop(key) for key in found.keys() - self.acknowledged.keys()}
        assert found == self.acknowledged
        assert extra.items() <= self.in_doubt.items()
        assert self.dm.verify() == []


def commit(store):
    store.write("900", b"y" * 10)
    store.write("901", b"z" * 100)  # its actions go to storage


def export(store):
    file = io.BytesIO()
    store.dm.export(file)
    return file.getvalue()


def reopen(store):
    store.close()
    store.open()


def recover(store):
    store.close()
    for file in store.path.glob("coordinator.db*"):
        file.unlink()
    store.open()


PROCEDURES = {
    "commit": commit,
    "sync": lambda store: store.dm.sync(),
    "checkpoint": lambda store: store.dm.checkpoint(force=True),
    "collect": lambda store: store.dm.collect_garbage(),
    "read": lambda store: [store.dm.read_object("n", key) for key in ("003", "040")],
    "scan": lambda store: dict(store.dm.list_objects("n")),
    "export": export,
    "import": lambda store: store.dm.import_(io.BytesIO(store.exported)),
    "open": reopen,
    "recover": recover,
}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Return the directory of a store with checkpoints, synced and unsynced WALs; and its export."""
    path = tmp_path_factory.mktemp("template")
    store = Store(path)
    store.open()
    items = list(CONTENT.items())
    store.dm.write_wal([Put("n", *item) for item in items[:20]])
    store.dm.checkpoint(force=True)
    store.dm.write_wal([Put("n", *item) for item in items[20:30]])
    store.dm.checkpoint(force=True)
    store.dm.write_wal([Put("n", *item) for item in items[30:39]])
    store.dm.write_wal([Put("n", *items[39])])
    store.dm.sync()
    store.exported = export(store)
    store.close()
    return store


@pytest.fixture
def fresh(template, tmp_path):
    """Return a function that makes a copy of the template, opened."""
    numbers = iter(range(1_000_000))

    def make(procedure):
        path = tmp_path / str(next(numbers))
        shutil.copytree(template.path, path)
        store = Store(path)
        store.exported = template.exported
        store.open()
        if procedure in {"sync", "checkpoint"}:
            store.write("800", b"u" * 30)
        return store

    return make


def attempt(store, procedure):
    """Run a procedure; return the error that it ended with, which must be one of ours."""
    try:
        PROCEDURES[procedure](store)
    except AgolaError as error:
        return error
    return None


def prove_healthy(store, procedure):
    store.storage.heal()
    store.close()
    store.check()
    assert attempt(store, procedure) is None
    store.close()
    store.check()
    store.close()


def positions(fresh, procedure, fault):
    """Return which calls of a procedure are to fail: all, but of many reads only some."""
    store = fresh(procedure)
    store.storage.heal()
    assert attempt(store, procedure) is None
    calls = list(store.storage.calls)
    store.close()
    writes = [number for number, (name, _) in enumerate(calls, 1) if name in {"write", "delete"}]
    if fault is Fault.AFTER:  # to a reader it is the same as before
        return writes
    reads = [number for number in range(1, len(calls) + 1) if number not in writes]
    return sorted({*writes, *reads[:: max(1, len(reads) // 8)], *reads[-1:]})


@pytest.mark.parametrize("procedure", PROCEDURES)
@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER], ids=lambda fault: fault.name)
def test_any_one_call_of_a_procedure_may_fail(fresh, procedure, fault):
    for number in positions(fresh, procedure, fault):
        store = fresh(procedure)
        store.storage.fail(fault, at=number)
        attempt(store, procedure)
        assert len(store.storage.calls) >= number
        prove_healthy(store, procedure)


# The datamanager writes nothing on a condition, so no precondition of its own can fail.
LASTING = [fault for fault in Fault if fault not in {Fault.STALE_LIST, Fault.PRECONDITION}]


@pytest.mark.parametrize("procedure", PROCEDURES)
@pytest.mark.parametrize("fault", LASTING, ids=lambda fault: fault.name)
def test_a_fault_may_last(fresh, procedure, fault):
    store = fresh(procedure)
    store.storage.fail(fault, lasting=True)
    error = attempt(store, procedure)
    touched = {name for name, _ in store.storage.calls}
    concerned = touched & ({"write"} if fault in {Fault.FULL, Fault.SHORT_WRITE} else touched)
    if fault is Fault.TRUNCATED:
        concerned &= {"read", "reader", "open_stream"}
    assert (error is not None) == bool(concerned), (error, touched)
    prove_healthy(store, procedure)


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_a_list_may_be_stale(fresh, procedure):
    """The newest is never found by listing alone: what a stale list hides is noticed, or not needed."""
    store = fresh(procedure)
    store.storage.fail(Fault.STALE_LIST, lasting=True)
    attempt(store, procedure)
    store.storage.heal()
    if procedure == "recover":  # with the coordinator lost, the list is all there is: then the chain shows it
        store.close()
        return
    prove_healthy(store, procedure)


@pytest.mark.parametrize("found", [False, True])
def test_a_storage_that_refuses_every_write_ends_the_opening(tmp_path, found):
    """A precondition that a storage finds unmet is no lost lock for ever: the opening gives up and says why."""
    path = tmp_path / "store"
    if found:
        with agola_core.open(path, data_types=["n"], options=OPTIONS) as dm:
            dm.write_wal([Put("n", "a", b"1")])
            dm.sync()
        for file in path.glob("coordinator.db*"):
            file.unlink()
    store = Store(path)
    writes = []

    class Refusing(FaultyStorage):
        def write(self, path, data, *, if_absent=False):
            writes.append(path)
            raise ConflictError("precondition failed")

    real, store.storage = store.storage, Refusing(store.storage)
    with pytest.raises(UnavailableError, match="precondition failed"):
        store.open()
    assert len(writes) == 5
    store.storage = real
    store.open()
    assert dict(store.dm.list_objects("n")) == ({"a": b"1"} if found else {})
    store.close()
