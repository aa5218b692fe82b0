"""How a process takes in what others commit: its readers see whole transactions, and nothing older than before."""

import contextlib
import io

import pytest

import agola_core
from agola_core import ConflictError, Options, Put
from agola_core.coordinator import open_coordinator
from agola_core.datamanager import DataManager
from agola_core.datamanager.format import keys, records
from agola_core.datamanager.log import log as log_module
from agola_core.datamanager.log.commit.pending_wal import PendingWal
from agola_core.objectstorage.posix.storage import PosixStorage


def open_store(path):
    return agola_core.open(path, data_types=["note"], options=Options(background=False, inline_limit=50))


def write_together(dm, *writes):
    """Commit several WALs, each of one group, in one transaction."""
    commits = []
    for number, (group, data) in enumerate(writes):
        actions = [Put("note", group, data)]
        encoded = records.encode_actions(actions)
        payload = None
        if len(encoded) > 50:
            dm.storage.write(f"payloads/{number:032x}.payload", encoded)
            digest = records.digest_of(encoded)
            payload = records.PayloadRef(f"payloads/{number:032x}.payload", len(encoded), digest)
        token = dm.change_groups_token([group])
        commits.append(
            PendingWal(
                actions,
                b"" if payload else encoded,
                payload,
                token,
                wal_id=group,
                remembered=False,
                digest="",
                lineage=dm.lineage,
                collected=dm._store.log.collected,
            )
        )
    dm._writer.group_commit._work(commits)
    assert [commit.error for commit in commits] == [None] * len(commits)


class Watched:
    """A backend that calls back before each call of one method."""

    def __init__(self, backend, method, callback):
        self._backend = backend
        self._method = method
        self._callback = callback

    def __getattr__(self, name):
        if name == self._method:
            self._callback()
        return getattr(self._backend, name)


def test_a_transaction_of_another_process_is_seen_as_a_whole(tmp_path):
    with open_store(tmp_path) as dm, open_store(tmp_path) as other:
        seen = []
        other._store.log._reader.storage = Watched(
            other._store.log.storage, "read", lambda: seen.append(other._store.log.view)
        )
        before = other._store.log.view
        write_together(dm, ("g", b"x" * 100), ("h", b"y" * 100))
        assert other.refresh().counter == 2
        assert seen == [before, before]  # a view of the first alone would have the revision of both


@pytest.mark.parametrize("behind", [False, True])
def test_readers_keep_their_view_while_the_log_is_read_anew(tmp_path, behind):
    with open_store(tmp_path) as dm, open_store(tmp_path) as other:
        token = dm.write_wal([Put("note", "n", b"1")], dm.change_groups_token(["g"]))
        if not behind:
            other.refresh()
        token = dm.write_wal([Put("note", "n", b"2")], token)
        dm.checkpoint(force=True)
        dm.write_wal([Put("note", "n", b"3")], token)
        before, seen = other._store.log.view, []
        coordinator = other._store.log.coordinator

        def look():
            if other._store.log.view is not before:
                seen.append((other._store.log.view.sequence.counter, other._store.log.view.revision))

        log = other._store.log
        log.coordinator = log._reader.coordinator = Watched(coordinator, "list", look)
        other.refresh()
        assert seen == []
        data, token = other.read_object("note", "n", ["g"])
        assert (data, token.revision) == (b"3", coordinator.get(keys.HEAD).mod_revision)
        dm.write_wal([Put("note", "n", b"4")], token)


class BesideOthers:
    """An import that others may have the store open for."""

    sections = frozenset()

    def barrier(self):
        return ()

    def check(self, data_type, object_id, data):
        pass

    def operations(self):
        return ()


def test_an_import_while_a_process_looks_lets_no_writer_through_that_waits_for_storage(tmp_path):
    """What storage has of the new lineage is not the WAL of the old one, whose number is smaller."""
    with open_store(tmp_path) as dm, open_store(tmp_path) as other:
        exported = io.BytesIO()
        dm.export(exported)
        exported.seek(0)
        other.write_wal([Put("note", "n", b"1")])
        log, gets = other._store.log, []

        def import_before_the_third():  # after those of the head and the checkpoint
            gets.append(log.synced)
            if len(gets) == 3:
                dm.import_(exported, parts=BesideOthers())

        log.coordinator = Watched(log.coordinator, "get", import_before_the_third)
        log.catch_up()
        assert len(gets) >= 3
        assert log.synced.epoch == log.lineage.epoch


def test_a_token_is_not_newer_than_what_is_read_after_a_refused_write(tmp_path):
    with open_store(tmp_path) as dm, open_store(tmp_path) as other:
        token = other.change_groups_token(["g"])
        dm.write_wal([Put("note", "n", b"1")], token)
        with pytest.raises(ConflictError):
            other.write_wal([Put("note", "n", b"late")], token)
        data, token = other.read_object("note", "n", ["g"])
        assert data == b"1"
        other.write_wal([Put("note", "n", b"2")], token)


def test_a_store_is_opened_although_the_coordinator_is_compacted_meanwhile(tmp_path):
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "n", b"1")])
        dm.checkpoint(force=True)
        dm.write_wal([Put("note", "n", b"2")])
        overtaken = []

        class Compacting(PosixStorage):
            def read(self, path, offset=0, length=None):
                if "manifests/" in path and not overtaken:
                    overtaken.append(dm.write_wal([Put("note", "n", b"3")]))
                    dm.coordinator.compact(overtaken[0].revision)
                return super().read(path, offset, length)

        with (
            contextlib.closing(open_coordinator(str(tmp_path / "coordinator.db"))) as coordinator,
            DataManager(coordinator, Compacting(tmp_path / "storage"), ["note"], Options(background=False)) as other,
        ):
            assert other.read_object("note", "n")[0] == b"3"
        assert overtaken


def test_a_feed_never_runs_ahead_of_what_its_process_reads(tmp_path, monkeypatch):
    monkeypatch.setattr("agola_core.datamanager.log.recent_wals._RECENT_WALS", 1)
    with open_store(tmp_path) as dm, open_store(tmp_path) as other:
        for number in range(3):
            dm.write_wal([Put("note", "n", b"%d" % number)])
        other.refresh()
        dm.write_wal([Put("note", "n", b"newest")])  # in the coordinator, and not in the other's view
        with other.watch(after=other.sequence.next(-3)) as feed:
            assert [event.sequence.counter for _ in range(4) if (event := feed.next(0))] == [1, 2, 3]
            assert feed.next(0) is None
            dm.checkpoint(force=True)
            other.refresh()
            assert feed.next(0).actions == (Put("note", "n", b"newest"),)


def test_a_checkpoint_of_a_lineage_that_has_ended_is_not_adopted(tmp_path):
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("note", "n", b"1")])
        dm.checkpoint(force=True)
        item = dm.coordinator.get(keys.CHECKPOINT)
        record = records.decode(records.CheckpointRecord, item.value, item.key)
        exported = io.BytesIO()
        dm.export(exported)
        exported.seek(0)
        dm.import_(exported)
        view = dm._store.log.view
        dm._store.log.adopt(record, item.mod_revision)  # by a checkpointer that was paused after its transaction
        assert dm._store.log.view is view


@pytest.mark.parametrize("reload", [False, True])
def test_a_batch_that_arrives_while_the_log_catches_up_is_no_step_back_in_time(tmp_path, monkeypatch, reload):
    with open_store(tmp_path) as dm, open_store(tmp_path) as other:
        dm.write_wal([Put("note", "a", b"1")])
        other.write_wal([Put("note", "b", b"2")])
        if reload:
            other.checkpoint(force=True)
            other.write_wal([Put("note", "b", b"2")])
        before, read = str(dm._store.log.synced), log_module.require_control

        def read_and_sync(coordinator):
            control = read(coordinator)
            monkeypatch.setattr(log_module, "require_control", read)
            dm.sync()
            return control

        monkeypatch.setattr(log_module, "require_control", read_and_sync)
        dm.refresh()
        assert dm.get("note", "b") == b"2"
        assert before < str(dm._store.log.synced) == dm.status().synced
