"""Repair: what has a second source is given back, what has none is left and named, and nothing is ever lost."""

import shutil

import pytest

import agola_core
from agola_core import ConflictError, CorruptionError, Delete, NotFoundError, Options, Put, RecoveryError
from agola_core.coordinator.lock import try_lock
from agola_core.datamanager.format import keys
from agola_core.runtime import faultpoints
from agola_core.runtime.faultpoints import InjectedFaultError
from tests.support.manifests import data_files

OPTIONS = Options(background=False, inline_limit=40, block_size=200, file_size=600, retain_wals=100)


def open_store(path):
    return agola_core.open(path, data_types=["n"], options=OPTIONS)


@pytest.fixture
def store(tmp_path):
    """The directory of a store with two checkpoints and WALs after them, and what it holds."""
    path = tmp_path / "store"
    with open_store(path) as dm:
        dm.write_wal([Put("n", f"{number:03}", b"x" * number) for number in range(40)])
        dm.checkpoint(force=True)
        dm.write_wal([Put("n", "a", b"1" * 30), Delete("n", "003")])
        dm.checkpoint(force=True)
        dm.write_wal([Put("n", "b", b"2")])
        dm.sync()
    return path


def contents(path):
    with open_store(path) as dm:
        return dict(dm.list_objects("n"))


def stored(path, pattern):
    return sorted(path.glob(f"storage/data/{pattern}"))


def spoil(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])


def delete(file):
    file.unlink()


def test_a_whole_store_needs_no_repair(store):
    expected = contents(store)
    assert agola_core.verify(store) == []
    assert agola_core.repair(store) == []
    assert contents(store) == expected


@pytest.mark.parametrize("harm", [spoil, delete])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_batch_is_written_again_from_the_coordinator(store, harm, index):
    expected = contents(store)
    batch = stored(store, "lineages/*/wals/*.wals")[index]
    harm(batch)
    assert agola_core.verify(store)
    done = agola_core.repair(store)
    assert done
    assert all(repair.done for repair in done)
    assert agola_core.verify(store) == []
    assert agola_core.repair(store) == []
    assert contents(store) == expected
    for file in store.glob("coordinator.db*"):
        file.unlink()
    assert contents(store) == expected  # and the storage alone is enough again


@pytest.mark.parametrize("harm", [spoil, delete])
@pytest.mark.parametrize("pattern", ["lineages/*/manifests/*", "data/*"])
def test_a_damaged_checkpoint_is_rebuilt_from_an_older_one(store, harm, pattern):
    expected = contents(store)
    newest = stored(store, "lineages/*/manifests/*")[-1]
    harm(newest if "manifests" in pattern else newest_data_file(store))
    if "manifests" in pattern:
        with pytest.raises(CorruptionError):
            open_store(store)
    assert agola_core.verify(store)
    done = agola_core.repair(store)
    assert [repair.done for repair in done] == [True]
    assert "rebuilt" in done[0].message
    assert agola_core.verify(store) == []
    assert contents(store) == expected
    assert agola_core.repair(store) == []
    with open_store(store) as dm:
        assert dm.checkpoints()[-1].origin == "repair"
        dm.write_wal([Put("n", "later", b"1")])
        dm.checkpoint(force=True)
    assert contents(store) == expected | {"later": b"1"}


def newest_data_file(store):
    with open_store(store) as dm:
        newest = data_files(dm.storage, dm._store.log.view.manifest)[0].path
        older = {ref.path for item in dm.checkpoints()[:-1] for ref in files_of(dm, item)}
    assert newest not in older
    return store / "storage/data" / newest


def files_of(dm, checkpoint):
    from agola_core.datamanager.format.control import read_control
    from agola_core.datamanager.format.lineages import past_lineages
    from agola_core.datamanager.identity.manifest_history import stored_manifests
    from agola_core.datamanager.sstable.manifest import read_manifest

    for item in stored_manifests(dm.storage, past_lineages(dm.storage, read_control(dm.coordinator))):
        if item.number == checkpoint.number:
            return data_files(dm.storage, read_manifest(dm.storage, item.path))
    return []


def test_what_no_second_source_has_is_left_and_named(store):
    for manifest in stored(store, "lineages/*/manifests/*"):
        spoil(manifest)
    before = {path: path.read_bytes() for path in stored(store, "**/*") if path.is_file()}
    (left,) = agola_core.repair(store)
    assert not left.done
    assert "no older checkpoint is whole" in left.message
    assert {path: path.read_bytes() for path in stored(store, "**/*") if path.is_file()} == before


def test_a_batch_that_the_coordinator_no_longer_has_is_left(store):
    with agola_core.open(store, data_types=["n"], options=Options(background=False, retain_wals=0)) as dm:
        dm.checkpoint(force=True)
        dm.clean_up()
    batch = stored(store, "lineages/*/wals/*.wals")[0]
    spoil(batch)
    (left,) = agola_core.repair(store)
    assert (left.done, batch.name in left.path) == (False, True)
    assert batch.exists()


def test_lost_marks_of_whose_storage_it_is_are_written_again(store):
    expected = contents(store)
    (marker,) = stored(store, "lineages/*/active.json")
    for harm in (delete, lambda file: file.write_bytes(b"{")):
        harm(store / "storage/data/store.json")
        harm(marker)
        assert len(agola_core.verify(store)) >= 1
        assert all(repair.done for repair in agola_core.repair(store))
        assert agola_core.verify(store) == []
    assert contents(store) == expected


def test_a_repair_does_not_run_beside_a_checkpoint(store):
    coordinator, storage = agola_core.embedded.open_backends(store)
    with try_lock(coordinator, keys.CHECKPOINT_LOCK, owner="other"), pytest.raises(ConflictError, match="try again"):
        agola_core.repair(store)
    coordinator.close()
    storage.close()


def test_a_repair_may_run_while_others_have_the_store_open(store):
    expected = contents(store)
    with open_store(store) as dm:
        spoil(stored(store, "lineages/*/manifests/*")[-1])
        assert all(repair.done for repair in agola_core.repair(store))
        dm.refresh()
        assert dict(dm.list_objects("n")) == expected
        dm.write_wal([Put("n", "later", b"1")])
    assert contents(store) == expected | {"later": b"1"}


def test_a_repair_that_ends_at_any_step_can_be_repeated(store, tmp_path):
    expected = contents(store)
    (marker,) = stored(store, "lineages/*/active.json")
    spoil(stored(store, "lineages/*/manifests/*")[-1])
    spoil(stored(store, "lineages/*/wals/*.wals")[0])
    marker.unlink()
    points = [point for point in faultpoints.declared() if point.startswith("repair.")]
    assert len(points) == 4
    for point in [*points, "lineage.before-marker", "checkpoint.before-data-file"]:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(store, copy)
        with faultpoints.arm(faultpoints.trigger(f"{point}:1:raise")), pytest.raises(InjectedFaultError):
            agola_core.repair(copy)
        assert all(repair.done for repair in agola_core.repair(copy))
        assert contents(copy) == expected
        assert agola_core.verify(copy) == []


def test_without_a_store_there_is_nothing_to_verify_or_repair(tmp_path, store):
    for call in (agola_core.verify, agola_core.repair):
        with pytest.raises(NotFoundError):
            call(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    for file in store.glob("coordinator.db*"):
        file.unlink()
    with pytest.raises(RecoveryError, match="recover"):
        agola_core.repair(store)
    spoil(stored(store, "data/*")[0])
    found = agola_core.verify(store)
    assert found[0].message == "the coordinator holds no store"
    assert any(finding.path.startswith("data/") for finding in found)
