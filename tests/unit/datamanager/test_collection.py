"""Collection beside everything that it must not disturb; each with no grace period at all."""

import io

import pytest

import agola_core
from agola_core import DeadlineError, FencedError, Options, Put
from agola_core.coordinator import open_coordinator
from agola_core.datamanager import DataManager
from agola_core.datamanager.identity import instance
from agola_core.objectstorage.posix.storage import PosixStorage
from agola_core.runtime import faultpoints

OPTIONS = Options(background=False, inline_limit=24, block_size=100, file_size=300, retain_manifests=1, grace_period=0)


def open_store(path):
    return agola_core.open(path, data_types=["n"], options=OPTIONS)


def at_point(name, action):
    """Return a hook that acts once, at a fault point."""
    left = [name]

    def hook(point):
        if left and point == left[0]:
            left.clear()
            action()

    return hook


@pytest.mark.parametrize(
    "point",
    [
        "checkpoint.before-data-file",
        "checkpoint.before-file-list",
        "checkpoint.before-manifest",
        "checkpoint.before-txn",
    ],
)
def test_the_files_of_a_checkpoint_that_is_at_work_are_left(tmp_path, point):
    with open_store(tmp_path) as one, open_store(tmp_path) as two:
        for turn in range(2):
            one.write_wal([Put("n", f"{number:03}", b"%d" % turn * 30) for number in range(40)])
            collected = []
            with faultpoints.arm(at_point(point, lambda: collected.append(two.collect_garbage()))):  # noqa: B023
                one.checkpoint(force=True)
            assert len(collected) == 1
            assert one.verify() == []
        assert len(dict(one.list_objects("n"))) == 40


@pytest.mark.parametrize(
    "point",
    ["checkpoint.before-data-file", "checkpoint.before-file-list", "lineage.before-manifest", "lineage.before-txn"],
)
def test_the_files_of_an_import_that_is_at_work_are_left(tmp_path, point):
    with open_store(tmp_path) as dm:
        dm.write_wal([Put("n", f"{number:03}", b"x" * 30) for number in range(40)])
        exported = io.BytesIO()
        dm.export(exported)
        exported.seek(0)
        collected = []
        with faultpoints.arm(at_point(point, lambda: collected.append(dm.collect_garbage()))):
            dm.import_(exported)
        assert len(collected) == 1
        assert dm.verify() == []
        assert len(dict(dm.list_objects("n"))) == 40


def test_a_store_that_is_opened_reads_what_a_collection_spared_that_came_before_it_was_known(tmp_path):
    with open_store(tmp_path) as one:
        for turn in range(2):
            one.write_wal([Put("n", f"{number:03}", b"%d" % turn * 30) for number in range(40)])
            one.checkpoint(force=True)

        def overtake():
            for turn in range(3):
                one.write_wal([Put("n", f"{number:03}", b"%d" % turn * 30) for number in range(40)])
                one.checkpoint(force=True)
            assert one.collect_garbage()

        with faultpoints.arm(at_point("instance.before-publish", overtake)), open_store(tmp_path) as two:
            assert dict(two.list_objects("n")) == dict(one.list_objects("n"))


class Overtaken(PosixStorage):
    """Lets somebody else act before the first look at a manifest, or at what is named."""

    overtake = staticmethod(lambda: None)
    named = "/manifests/"

    def read(self, path, offset=0, length=None):
        if self.named in path:
            overtake, self.overtake = self.overtake, lambda: None
            overtake()
        return super().read(path, offset, length)


@pytest.mark.parametrize("use", ["open", "refresh", "checkpoint"])
def test_a_checkpoint_that_is_replaced_and_collected_before_it_is_read_is_no_damage(tmp_path, use):
    storage = Overtaken(tmp_path / "storage")
    coordinator = open_coordinator(str(tmp_path / "coordinator.db"))
    with open_store(tmp_path) as one:

        def write(turn):
            one.write_wal([Put("n", f"{number:03}", b"%d" % turn * 30) for number in range(40)])
            one.checkpoint(force=True)

        def overtake():
            if use != "open":  # a pause that is longer than the lease
                coordinator.revoke_lease(two._store.instance._keeper.lease)
            for turn in range(2, 5):
                write(turn)
            assert one.collect_garbage()

        write(0)
        if use == "open":
            storage.overtake = overtake
        with DataManager(coordinator, storage, ["n"], OPTIONS) as two:
            if use == "refresh":
                write(1)
                storage.overtake = overtake
            elif use == "checkpoint":
                two.write_wal([Put("n", "a", b"")])
                storage.overtake = overtake
                two.checkpoint(force=True)
            two.refresh()
            assert dict(two.list_objects("n")) == dict(one.list_objects("n"))
    coordinator.close()


@pytest.mark.parametrize("named", ["/manifests/", "/wals/"])
def test_a_collector_that_slept_while_another_collected_is_fenced(tmp_path, named):
    storage = Overtaken(tmp_path / "storage")
    storage.named = named
    coordinator = open_coordinator(str(tmp_path / "coordinator.db"))
    with open_store(tmp_path) as one, DataManager(coordinator, storage, ["n"], OPTIONS) as two:

        def write(turn):
            one.write_wal([Put("n", f"{number:03}", b"%d" % turn * 30) for number in range(40)])
            one.sync()

        def overtake():
            coordinator.revoke_lease(two._store.instance._keeper.lease)
            two._store.instance._keeper._deadline = 0.0
            for turn in range(3, 6):
                write(turn)
                one.checkpoint(force=True)
            assert one.collect_garbage()

        for turn in range(3):
            write(turn)
        two.refresh()
        two.storage.write("payloads/nobodys.payload", b"")
        storage.overtake = overtake
        with pytest.raises(FencedError):
            two.collect_garbage()
        assert one.verify() == []
    coordinator.close()


@pytest.mark.parametrize("needed", [False, True])
def test_a_batch_that_vanishes_under_a_verification_is_found_where_it_is_needed(tmp_path, needed):
    storage = Overtaken(tmp_path / "storage")
    storage.named = "/wals/"
    coordinator = open_coordinator(str(tmp_path / "coordinator.db"))
    with DataManager(coordinator, storage, ["n"], OPTIONS) as dm:
        (first,) = (info.path for info in storage.list("lineages/") if "/manifests/" in info.path)
        dm.write_wal([Put("n", "a", b"")])
        dm.sync()
        if not needed:
            dm.checkpoint(force=True)
            storage.delete(first)
        (batch,) = (info.path for info in storage.list("lineages/") if "/wals/" in info.path)
        storage.overtake = lambda: storage.delete(batch)
        assert [finding.path for finding in dm.verify()] == ([batch] if needed else [])
    coordinator.close()


def test_a_verification_waits_for_the_end_of_a_collection(tmp_path, monkeypatch):
    monkeypatch.setattr(instance, "_COLLECTION_SECONDS", 0.0)
    with open_store(tmp_path) as one:
        for turn in range(3):
            one.write_wal([Put("n", f"{number:03}", b"%d" % turn * 30) for number in range(40)])
            one.checkpoint(force=True)
        refused = []

        def verify():
            with open_store(tmp_path) as two, pytest.raises(DeadlineError) as error:
                two.verify()
            refused.append(error)

        with faultpoints.arm(at_point("collect.before-delete", verify)):
            assert one.collect_garbage()
        assert len(refused) == 1
        assert one.verify() == []


def test_a_dry_run_says_what_would_go_and_why_and_deletes_nothing(tmp_path):
    with open_store(tmp_path) as dm:
        for number in range(4):
            dm.write_wal([Put("n", "same", b"%d" % number * 50)])
            dm.checkpoint(force=True)
        assert dm.clean_up() == 0  # fewer WALs than are kept
        before = [info.path for info in dm.storage.list()]
        would = dm.collect_garbage(dry_run=True)
        assert [info.path for info in dm.storage.list()] == before
        assert {garbage.reason for garbage in would} == {
            "this manifest is no longer retained",
            "no retained manifest names this data file",
            "its WALs are in every retained manifest",
        }
        assert dm.collect_garbage() == would
        assert [info.path for info in dm.storage.list()] == [
            path for path in before if path not in {garbage.path for garbage in would}
        ]
        assert dm.verify() == []


def test_what_is_young_stays(tmp_path):
    options = Options(background=False, retain_manifests=1, retain_wals=0, grace_period=3600)
    with agola_core.open(tmp_path, data_types=["n"], options=options) as dm:
        for number in range(4):
            dm.write_wal([Put("n", "same", b"%d" % number)])
            dm.checkpoint(force=True)
        dm.clean_up()
        assert dm.collect_garbage() == []
        assert len(dm.checkpoints()) == 5
