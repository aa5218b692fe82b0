"""What a transaction or a write that failed leaves behind is put right later, or told as what it is."""

import io
import threading

import pytest

import agola_core
import agola_core.embedded
from agola_core import Options, Put
from agola_core.coordinator.port import DeleteOp
from agola_core.datamanager import DataManager
from agola_core.datamanager.format import keys
from agola_core.datamanager.identity.instance import Instance, list_instances
from agola_core.errors import OutOfSpaceError, UnavailableError, UnknownOutcomeError
from agola_core.objectstorage import open_storage
from agola_core.runtime import faultpoints

QUIET = Options(background=False)


class Refusing:
    """A coordinator that refuses the transactions that it is told to, before or after it does them."""

    def __init__(self, coordinator):
        self._coordinator = coordinator
        self.refuse = lambda then: None

    def __getattr__(self, name):
        return getattr(self._coordinator, name)

    def txn(self, compare, then, otherwise=()):
        error = self.refuse(then)
        if isinstance(error, UnknownOutcomeError):
            self._coordinator.txn(compare, then, otherwise)
        if error is not None:
            raise error
        return self._coordinator.txn(compare, then, otherwise)


class Away:
    """A coordinator that cannot be reached now and then."""

    def __init__(self, coordinator):
        self._coordinator = coordinator
        self._away = False

    def go(self):
        self._away = True
        raise UnavailableError("away")

    def come_back(self):
        self._away = False

    def get(self, key):
        if self._away:
            raise UnavailableError("away")
        return self._coordinator.get(key)

    def __getattr__(self, name):
        return getattr(self._coordinator, name)


@pytest.fixture
def coordinator(tmp_path):
    inner, storage = agola_core.embedded.open_backends(tmp_path)
    yield Refusing(inner)
    inner.close()
    storage.close()


@pytest.fixture
def instance(coordinator):
    instance = Instance(coordinator, "one", 60.0, 0)
    yield instance
    instance.close()


def of_lock(error):
    return lambda then: error if any(op.key == keys.CHECKPOINT_LOCK for op in then) else None


@pytest.mark.parametrize("publish", [False, True])
def test_a_lock_that_could_not_be_released_is_later(coordinator, instance, publish):
    lock = instance.try_lock(keys.CHECKPOINT_LOCK)
    coordinator.refuse = of_lock(OutOfSpaceError("full"))
    lock.release()
    with pytest.raises(OutOfSpaceError):
        instance.try_lock(keys.CHECKPOINT_LOCK)
    coordinator.refuse = lambda then: None
    if publish:
        instance.publish()
        assert coordinator.get(keys.CHECKPOINT_LOCK) is None
    with instance.try_lock(keys.CHECKPOINT_LOCK):
        assert instance.try_lock(keys.CHECKPOINT_LOCK) is None
        instance.publish()
        assert coordinator.get(keys.CHECKPOINT_LOCK) is not None


def test_a_lock_that_was_acquired_unheard_is_released(coordinator, instance):
    coordinator.refuse = of_lock(UnknownOutcomeError("cut"))
    with pytest.raises(UnknownOutcomeError):
        instance.try_lock(keys.CHECKPOINT_LOCK)
    assert coordinator.get(keys.CHECKPOINT_LOCK) is not None
    coordinator.refuse = lambda then: None
    instance.try_lock(keys.CHECKPOINT_LOCK).release()


@pytest.mark.parametrize("error", [UnavailableError, UnknownOutcomeError])
def test_an_instance_that_could_not_be_published_leaves_nothing(coordinator, error):
    before = set(threading.enumerate())
    coordinator.refuse = lambda then: error("no answer")
    with pytest.raises(error):
        Instance(coordinator, "me", 10.0, 1)
    assert list_instances(coordinator) == []
    assert not [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("lease-")]


def test_a_store_whose_loops_could_not_be_started_leaves_nothing(coordinator, tmp_path):
    storage = open_storage(str(tmp_path / "storage"))

    def refuse(*arguments):
        raise UnavailableError("no answer")

    coordinator.watch = refuse
    before = set(threading.enumerate())
    with pytest.raises(UnavailableError, match="no answer"):
        DataManager(coordinator, storage, ["note"])
    assert list_instances(coordinator) == []
    left = [thread.name for thread in set(threading.enumerate()) - before]
    assert not [name for name in left if name.startswith(("lease-", "datamanager-"))]


def test_an_instance_whose_lease_ends_while_it_is_published_takes_another(coordinator, instance):
    lost = []

    def lose(name):
        if name == "instance.before-publish" and not lost:
            lost.append(instance._keeper.lease)
            coordinator.revoke_lease(lost[0])

    instance.reads(7)
    with faultpoints.arm(lose):
        instance.publish()
    assert [record.manifest for record in list_instances(coordinator)] == [7]
    assert lost != [instance._keeper.lease]


def test_a_checkpoint_after_one_whose_lock_stayed_is_made(tmp_path):
    inner, storage = agola_core.embedded.open_backends(tmp_path)
    coordinator = Refusing(inner)
    with agola_core.datamanager.DataManager(coordinator, storage, ["n"], QUIET) as dm:
        dm.write_wal([Put("n", "a", b"")])
        coordinator.refuse = lambda then: (
            OutOfSpaceError("full") if len(then) == 1 and isinstance(then[0], DeleteOp) else None
        )
        dm.checkpoint(force=True)
        coordinator.refuse = lambda then: None
        dm.write_wal([Put("n", "b", b"")])
        dm.checkpoint(force=True)
        assert dm.status().uncheckpointed_wals == 0
    inner.close()
    storage.close()


@pytest.mark.parametrize("point", ["lineage.before-marker", "lineage.before-txn"])
def test_an_import_whose_end_failed_is_read_as_what_it_made(tmp_path, point):
    """The switch is one transaction: an error after it changes nothing of that, nor may what came with it be undone."""

    class Parts:
        sections = frozenset()
        undone = False

        def barrier(self):
            return ()

        def check(self, data_type, object_id, data):
            pass

        def operations(self):
            return ()

        def undo(self):
            self.undone = True

    parts, exported = Parts(), io.BytesIO()
    with agola_core.open(tmp_path, data_types=["n"], options=QUIET) as dm:
        dm.write_wal([Put("n", "old", b"1")])
        dm.export(exported)
        exported.seek(0)
        dm.write_wal([Put("n", "new", b"2")])
        with (
            faultpoints.arm(faultpoints.trigger(f"{point}:1:raise")),
            pytest.raises(faultpoints.InjectedFaultError),
        ):
            dm.import_(exported, parts=parts)
        made = point == "lineage.before-marker"
        assert [key for key, _ in dm.list_objects("n")] == (["old"] if made else ["new", "old"])
        assert parts.undone is not made
        dm.write_wal([Put("n", "after", b"3")])
        dm.sync()
    for file in tmp_path.glob("coordinator.db*"):
        file.unlink()
    with agola_core.open(tmp_path, data_types=["n"], options=QUIET) as dm:
        assert [key for key, _ in dm.list_objects("n")] == (["after", "old"] if made else ["after", "new", "old"])


def test_an_import_whose_outcome_is_not_known_is_looked_for_before_anything_else(tmp_path):
    """The switch is made, its answer is lost, and for a while the coordinator cannot be read."""
    exported = io.BytesIO()
    with agola_core.open(tmp_path, data_types=["n"], options=QUIET) as dm:
        dm.write_wal([Put("n", "old", b"1")])
        dm.export(exported)
        exported.seek(0)
        dm.write_wal([Put("n", "new", b"2")])
        real = dm.coordinator
        log = dm._store.log
        dm.coordinator = log.coordinator = log._reader.coordinator = away = Away(real)
        with (
            faultpoints.arm(lambda point: away.go() if point == "lineage.before-marker" else None),
            pytest.raises(UnavailableError),
        ):
            dm.import_(exported)
        with pytest.raises(UnavailableError):
            dm.read_object("n", "old")
        away.come_back()
        dm.write_wal([Put("n", "after", b"3")])
        assert [key for key, _ in dm.list_objects("n")] == ["after", "old"]
