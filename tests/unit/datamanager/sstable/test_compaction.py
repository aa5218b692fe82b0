"""What is deleted or replaced gives its space back: bit by bit with checkpoints, and at once when it is asked for."""

import random
from pathlib import Path

import pytest

import agola_core
from agola_core import Delete, Options, Put
from agola_core.datamanager.sstable.tiers import runs_to_merge, shadowed_by_deletes

OPTIONS = Options(background=False, grace_period=0.0, retain_manifests=1, retain_wals=1, file_size=200_000)


@pytest.fixture
def store(tmp_path):
    with agola_core.open(tmp_path / "store", data_types=["note", "other"], options=OPTIONS) as dm:
        yield dm


def fill(dm, count, data_type="note", size=1000):
    noise = random.Random(1)
    for start in range(0, count, 500):
        dm.write_wal([Put(data_type, f"{number:06}", noise.randbytes(size)) for number in range(start, start + 500)])
        dm.checkpoint(force=True)


def stored_bytes(dm):
    dm.clean_up()
    dm.collect_garbage()
    return sum(info.size for info in dm.storage.list())


def test_what_was_deleted_gives_its_space_back_with_the_next_checkpoints(store):
    fill(store, 5000)
    assert stored_bytes(store) > 5_000_000
    for start in range(0, 5000, 500):
        store.write_wal([Delete("note", f"{number:06}") for number in range(start, start + 500)])
        store.checkpoint(force=True)
    assert stored_bytes(store) < 100_000
    assert list(store.list_objects("note")) == []
    assert store.verify() == []


def test_a_compaction_leaves_one_run_and_the_same_content(store):
    fill(store, 2000)
    fill(store, 1000, "other")
    store.write_wal([Put("note", "000001", b"new"), Delete("note", "000002"), Delete("other", "000003")])
    before = {kind: dict(store.list_objects(kind)) for kind in store.data_types}
    reports = []
    token = store.change_groups_token(["g"])
    done = store.compact(reports.append)
    assert done.bytes < done.bytes_before + 10_000
    assert (reports[-1].work, reports[-1].ended, reports[-1].done) == ("compact", True, 2998)
    (run,) = store._store.log.view.manifest.runs
    assert run.tombstones == 0
    assert {kind: dict(store.list_objects(kind)) for kind in store.data_types} == before
    assert stored_bytes(store) < done.bytes + 50_000
    assert store.verify() == []
    store.write_wal([Put("note", "later", b"")], token)  # nothing that a token guards has moved
    with agola_core.open(Path(store.storage.root).parent, options=OPTIONS) as other:
        assert dict(other.list_objects("other")) == before["other"]


def test_a_compacted_store_is_not_written_again(store):
    fill(store, 500)
    first = store.compact()
    number = store.status().manifest
    again = store.compact()
    assert store.status().manifest == number
    assert (again.files_before, again.files) == (first.files, first.files)


def test_an_empty_store_is_compacted_to_nothing(store):
    store.write_wal([Put("note", "a", b"x")])
    store.checkpoint(force=True)
    store.write_wal([Delete("note", "a")])
    assert store.compact().files == 0
    assert list(store.list_objects("note")) == []


def test_a_compaction_that_is_given_up_changes_nothing(store):
    fill(store, 2000)
    store.write_wal([Put("note", "one more", b"")])
    number = store.status().manifest

    def give_up(report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.compact(give_up)
    assert store.status().manifest == number
    assert len(list(store.list_objects("note"))) == 2001
    assert store.verify() == []
    store.compact()


def test_readers_of_the_store_before_are_left_in_peace(store):
    fill(store, 1000)
    with store.snapshot() as snapshot:
        store.write_wal([Delete("note", f"{number:06}") for number in range(1000)])
        store.compact()
        stored_bytes(store)
        assert len(list(snapshot.scan("note"))) == 1000


def test_deletes_weigh_what_they_delete():
    assert shadowed_by_deletes([], [], []) == []
    assert shadowed_by_deletes([3], [], []) == [0]
    assert shadowed_by_deletes([10, 0, 1], [5_000, 100_000], [50, 100]) == [7_000, 0, 0]
    assert runs_to_merge([2_000_000], 100_000) == 0
    assert runs_to_merge([2_000_000], 100_000, [2_000_000, 0]) == 1
    assert runs_to_merge([100_000, 2_000_000], 100_000, [0, 2_000_000, 0]) == 2
