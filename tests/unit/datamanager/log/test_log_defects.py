"""What went wrong in Agola 0.2's log, its tokens and its commits, each as a test that the defect would fail."""

import threading
from itertools import count, pairwise

import pytest

import agola_core
from agola_core import BadRequestError, ConflictError, Delete, NotFoundError, Options, Put
from agola_core.coordinator import open_coordinator
from agola_core.coordinator.port import iterate
from agola_core.datamanager import DataManager
from agola_core.datamanager.format import keys
from agola_core.objectstorage.factory import open_storage
from agola_core.runtime import faultpoints
from agola_core.sequence import Sequence

JOIN_SECONDS = 60


def open_store(path, **options):
    return agola_core.open(path, data_types=["note"], options=Options(**{"background": False, **options}))


def wait_until(dm, sequence):
    """Wait until a datamanager that follows the log by itself has a WAL."""
    assert dm._store.log.wait(lambda: dm._store.log.view.sequence >= sequence, JOIN_SECONDS)


def test_pending_deletes_and_last_actions_win_before_and_after_a_checkpoint(tmp_path):
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "gone", b"1"), Put("note", "kept", b"1")])
        dm.checkpoint(force=True)
        dm.write_wal(
            [Delete("note", "gone"), Put("note", "kept", b"2"), Delete("note", "kept"), Put("note", "kept", b"3")]
        )
        for _ in range(2):
            with pytest.raises(NotFoundError):
                dm.read_object("note", "gone")
            assert dict(dm.list_objects("note")) == {"kept": b"3"}
            dm.checkpoint(force=True)


@pytest.mark.parametrize("same", [True, False], ids=["same process", "another"])
def test_a_token_is_never_newer_than_the_data_read_with_it(tmp_path, same):
    """A reader that gets fresh tokens with old data would overwrite what it never saw."""
    with open_store(tmp_path) as dm, open_store(tmp_path, background=True) as follower:
        reader = dm if same else follower
        dm.write_wal([Put("note", "n", b"0")], dm.change_groups_token(["g"]))
        wait_until(reader, dm.sequence)
        stop, wrong = threading.Event(), []

        def read():
            while not stop.is_set():
                data, token = reader.read_object("note", "n", ["g"])
                written = revisions.get(int(data))
                if written is not None and token.groups["g"] > written:
                    wrong.append((data, token))

        revisions = {0: dm.change_groups_token(["g"]).groups["g"]}
        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(1, 150):
            token = dm.write_wal([Put("note", "n", b"%d" % number)], dm.change_groups_token(["g"]))
            revisions[number] = token.groups["g"]
        stop.set()
        for thread in threads:
            thread.join(JOIN_SECONDS)
        assert wrong == []


def test_a_follower_whose_history_was_compacted_away_reads_the_newest_state(tmp_path):
    """Maps kept over a new start would let old puts shadow newer data for ever."""
    with open_store(tmp_path) as dm, open_store(tmp_path, background=True) as follower:
        dm.write_wal([Put("note", "deleted", b"1"), Put("note", "changed", b"1")])
        wait_until(follower, dm.sequence)
        with follower._store.log.lock:  # it cannot follow meanwhile
            dm.write_wal([Delete("note", "deleted"), Put("note", "changed", b"2")])
            for number in range(20):
                dm.write_wal([Put("note", f"{number}", b"")])
            dm.checkpoint(force=True)
            dm.clean_up()
            dm.coordinator.compact(dm.coordinator.list("").revision)
        wait_until(follower, dm.sequence)
        assert dict(follower.list_objects("note")) == dict(dm.list_objects("note"))
        dm.write_wal([Put("note", "after", b"")])
        wait_until(follower, dm.sequence)


def test_an_unknown_data_type_is_refused_and_those_of_others_are_carried_on(tmp_path):
    with agola_core.open(tmp_path, data_types=["note", "other"], options=Options(background=False)) as dm:
        dm.write_wal([Put("note", "a", b"1"), Put("other", "a", b"2")])
    with open_store(tmp_path) as dm:
        with pytest.raises(BadRequestError, match="unknown data type 'other'"):
            dm.write_wal([Put("other", "b", b"")])
        dm.write_wal([Put("note", "b", b"")])
        for _ in range(3):
            dm.checkpoint(force=True)
            dm.write_wal([Put("note", "c", b"")])
    with agola_core.open(tmp_path, data_types=["note", "other"], options=Options(background=False)) as dm:
        assert dm.read_object("other", "a")[0] == b"2"


def test_sequences_are_given_out_by_the_commit_itself(tmp_path):
    """A sequence that is taken before its commit may end up behind a smaller one that is committed later."""
    with open_store(tmp_path) as one, open_store(tmp_path) as two:

        def write(dm, name):
            for number in range(40):
                dm.write_wal([Put("note", f"{name}-{number}", b"")])

        threads = [
            threading.Thread(target=write, args=(dm, f"{dm is one}-{index}")) for dm in (one, two) for index in "ab"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(JOIN_SECONDS)
        items = list(iterate(one.coordinator, keys.WALS))
        assert [keys.wal_sequence(item.key).counter for item in items] == list(range(1, 161))
        assert all(before.mod_revision <= after.mod_revision for before, after in pairwise(items))


def test_contention_is_never_a_conflict_and_a_conflict_names_its_group(tmp_path):
    with open_store(tmp_path) as dm, open_store(tmp_path) as other:
        token = dm.change_groups_token(["mine"])
        for number in range(30):
            other.write_wal([Put("note", f"{number}", b"")], other.change_groups_token([f"other-{number}"]))
            token = dm.write_wal([Put("note", "n", b"")], token)
        other.refresh()
        other.write_wal([Put("note", "n", b"")], other.change_groups_token(["mine"]))
        with pytest.raises(ConflictError, match="change group 'mine' was changed by another writer"):
            dm.write_wal([Put("note", "n", b"")], token)


def test_the_payload_of_a_commit_that_failed_is_collected(tmp_path):
    with open_store(tmp_path, inline_limit=10, grace_period=0) as dm:
        token = dm.change_groups_token(["g"])
        dm.write_wal([Put("note", "a", b"x" * 100)], token)
        for _ in range(3):
            with pytest.raises(ConflictError):
                dm.write_wal([Put("note", "b", b"x" * 100)], token)

        def payloads():
            return [info.path for info in dm.storage.list("payloads/")]

        assert len(payloads()) == 4
        dm.collect_garbage()
        dm.collect_garbage()
        assert len(payloads()) == 1
        dm.checkpoint(force=True)
        assert dm.read_object("note", "a")[0] == b"x" * 100


def test_a_commit_writes_one_transaction_and_its_sync_one_object(tmp_path):
    """Agola wrote up to a hundred objects, and took a lock with a lease of its own, for every commit."""
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "first", b"")])
        dm.sync()
        before = dm.coordinator.list("").revision
        for number in range(150):
            dm.write_wal([Put("note", f"{number}", b"")])
        assert dm.coordinator.list("").revision == before + 150
        objects = {info.path for info in dm.storage.list("")}
        dm.sync()
        assert len({info.path for info in dm.storage.list("")} - objects) == 1
        assert dm.coordinator.list("").revision == before + 151


def test_a_clock_that_goes_back_orders_nothing(tmp_path):
    coordinator = open_coordinator(str(tmp_path / "coordinator.db"))
    storage = open_storage(str(tmp_path / "storage"))
    ticks = count()
    sequences = []
    for _ in range(2):
        clock = lambda: 2_000_000_000.0 - 1000 * next(ticks)  # noqa: E731
        with DataManager(coordinator, storage, ["note"], Options(background=False), clock=clock) as dm:
            sequences += [dm.write_wal([Put("note", "n", b"%d" % number)]).sequence for number in range(5)]
            dm.checkpoint(force=True)
            assert dm.read_object("note", "n")[0] == b"4"
    assert sequences == [str(Sequence(1, counter)) for counter in range(1, 11)]
    coordinator.close()
    storage.close()


def test_a_store_whose_first_opening_was_cut_short_is_opened_by_the_next(tmp_path):
    for point in ("lineage.before-manifest", "lineage.before-txn", "lineage.before-store", "lineage.before-marker"):
        with faultpoints.arm(faultpoints.trigger(f"{point}:1:raise")), pytest.raises(agola_core.UnavailableError):
            open_store(tmp_path / point)
        with open_store(tmp_path / point) as dm:
            dm.write_wal([Put("note", "a", b"1")])
        with open_store(tmp_path / point) as dm:
            assert dict(dm.list_objects("note")) == {"a": b"1"}
