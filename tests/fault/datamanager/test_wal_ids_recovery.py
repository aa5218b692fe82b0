"""Given WAL ids across recoveries and imports: a retry never applies twice, even where only storage is left."""

import io

import pytest

import agola_core
from agola_core import BadRequestError, Options, Put, TokenExpiredError
from agola_core.datamanager import DataManager, Durability
from agola_core.embedded import open_backends
from agola_core.runtime import faultpoints
from agola_core.runtime.faultpoints import InjectedFaultError

OPTIONS = Options(background=False, inline_limit=200, retain_wals=0)


def open_store(path, options=OPTIONS, **more):
    return agola_core.open(path, data_types=["note"], options=options, **more)


def lose_coordinator(path):
    for file in path.glob("coordinator.db*"):
        file.unlink()


def write(dm, number, size=1):
    return dm.write_wal(
        [Put("note", f"{number:02}", b"x" * size)], dm.change_groups_token(["g"]), wal_id=f"key/{number}"
    )


def retry_all(path, firsts, options=OPTIONS):
    """Retry every WAL and say which were applied again."""
    with open_store(path, options) as dm:
        before = dm.sequence
        again = []
        for number, first in firsts.items():
            size = 1000 if number % 3 == 0 else 1
            token = dm.write_wal([Put("note", f"{number:02}", b"x" * size)], wal_id=f"key/{number}")
            if token.sequence != first:
                again.append(number)
        assert dm.sequence.counter == before.counter + len(again)
        return again


@pytest.fixture
def store(tmp_path):
    """A store's directory, and the sequences of its WALs, folded and not, small and large."""
    path = tmp_path / "store"
    firsts = {}
    with open_store(path) as dm:
        for number in range(12):
            firsts[number] = write(dm, number, 1000 if number % 3 == 0 else 1).sequence
            dm.write_wal([Put("note", "made up", b"%d" % number)])
            if number % 4 == 3:
                dm.sync()
            if number == 7:
                dm.checkpoint(force=True)
                dm.clean_up()
    return path, firsts


def test_a_retry_after_the_coordinator_was_lost_returns_the_first_outcome(store):
    path, firsts = store
    for _ in range(3):  # a recovery takes over what the one before took over
        lose_coordinator(path)
        assert retry_all(path, firsts) == []


def test_ids_of_each_history_go_on_when_the_older_ones_storage_is_collected(store):
    path, firsts = store
    lose_coordinator(path)
    options = Options(background=False, retain_manifests=1, grace_period=0, retain_wals=0)
    with open_store(path, options) as dm:
        firsts[12] = write(dm, 12, 1000).sequence
        dm.checkpoint(force=True)
        dm.clean_up()
        assert any("/wals/" in garbage.path for garbage in dm.collect_garbage())
    lose_coordinator(path)
    assert retry_all(path, {number: firsts[number] for number in range(12)}) == []


def test_a_recovery_on_request_keeps_what_storage_has_and_forgets_what_is_lost(store):
    path, firsts = store
    with open_store(path) as dm:
        lost = write(dm, 20)  # never synced
    with open_store(path, recover=True) as dm:
        again = write(dm, 20)
        assert again.sequence > lost.sequence
        assert again.lineage == dm.lineage
    assert retry_all(path, firsts) == []


def test_the_token_of_a_retry_is_one_of_the_old_history(store):
    path, firsts = store
    lose_coordinator(path)
    with open_store(path, Options(background=False, durability=Durability.STORAGE)) as dm:
        token = dm.write_wal([Put("note", "01", b"x")], wal_id="key/1", timeout=30)
        assert (token.sequence, list(token.groups)) == (firsts[1], ["g"])
        assert token.lineage != dm.lineage
        with pytest.raises(TokenExpiredError, match="recovery"):
            dm.write_wal([Put("note", "01", b"y")], token)
        with pytest.raises(BadRequestError, match="other actions"):
            dm.write_wal([Put("note", "01", b"y")], wal_id="key/1")


def test_as_many_as_are_remembered_are_taken_over_the_newest(store):
    path, firsts = store
    lose_coordinator(path)
    options = Options(background=False, retain_wal_ids=5)
    open_store(path, options).close()
    assert retry_all(path, firsts, options) == list(range(7))


def test_an_import_forgets_ids(store):
    path, _ = store
    with open_store(path) as dm:
        exported = io.BytesIO()
        dm.export(exported)
        exported.seek(0)
        dm.import_(exported)
        assert write(dm, 1).lineage == dm.lineage
        assert dm.sequence.counter == 1
        dm.sync()
    lose_coordinator(path)
    with open_store(path) as dm:
        write(dm, 1)
        assert dm.sequence.counter == 0
        write(dm, 2)
        assert dm.sequence.counter == 1


@pytest.mark.parametrize("point", ["recovery.before-ids", "recovery.before-ids-part", "lineage.before-txn"])
def test_a_recovery_that_ends_at_any_step_changes_nothing_for_the_old_history(store, point):
    path, firsts = store
    with faultpoints.arm(faultpoints.trigger(f"{point}:1:raise")), pytest.raises(InjectedFaultError):
        open_store(path, recover=True)
    assert retry_all(path, firsts) == []
    lose_coordinator(path)
    with faultpoints.arm(faultpoints.trigger(f"{point}:1:raise")), pytest.raises(InjectedFaultError):
        open_store(path)
    assert retry_all(path, firsts) == []


def test_ids_are_taken_over_in_transactions_that_the_coordinator_can_hold(store):
    path, firsts = store
    lose_coordinator(path)
    coordinator, storage = open_backends(path)
    coordinator.max_txn_ops = 8
    DataManager(coordinator, storage, ["note"], OPTIONS).close()
    coordinator.close()
    storage.close()
    assert retry_all(path, firsts) == []


def test_whoever_lost_the_lock_takes_nothing_over(store):
    path, firsts = store
    lose_coordinator(path)
    coordinator, storage = open_backends(path)

    def overtake(name):
        if name == "recovery.before-ids-part" and not overtaken:
            overtaken.append(name)
            coordinator.revoke_lease(coordinator.get("dm/locks/initialise").lease)
            with open_store(path) as other:
                overtaken.append(other.lineage)

    overtaken = []
    with faultpoints.arm(overtake), DataManager(coordinator, storage, ["note"], OPTIONS) as dm:
        assert overtaken[1:] == [dm.lineage]
    coordinator.close()
    storage.close()
    assert retry_all(path, firsts) == []


def test_damage_of_what_only_tells_ids_does_not_stop_a_recovery(store):
    path, _ = store
    lose_coordinator(path)
    open_store(path).close()
    (ids,) = path.glob("storage/data/lineages/*/walids.json")
    ids.write_bytes(ids.read_bytes()[:-9])
    assert [finding.path.endswith("walids.json") for finding in agola_core.verify(path)] == [True]
    lose_coordinator(path)
    with open_store(path) as dm:
        assert len(list(dm.list_objects("note"))) == 13


def test_a_batch_that_is_collected_while_its_ids_are_looked_for_does_not_stop_a_recovery(store):
    path, _ = store
    lose_coordinator(path)
    coordinator, storage = open_backends(path)
    read, gone = storage.read, []

    def vanishing(key, *arguments):
        if "/wals/" in key and not gone and key == folded:
            gone.append(storage.delete(key))
        return read(key, *arguments)

    folded = min(info.path for info in storage.list("lineages/") if "/wals/" in info.path)
    storage.read = vanishing
    with DataManager(coordinator, storage, ["note"], OPTIONS) as dm:
        assert len(list(dm.list_objects("note"))) == 13
    assert gone
    coordinator.close()
    storage.close()
