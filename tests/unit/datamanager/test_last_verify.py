"""The last verify is kept in the store: only by whom asks for it, and only where the store is sure to be itself."""

import logging
import shutil

import pytest

import agola_core
from agola_core import Options, Put
from agola_core.datamanager import read_verify
from agola_core.datamanager.check.last_verify import MAX_KEPT

QUIET = Options(background=False)


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "store"
    with agola_core.open(path, data_types=["note"], options=QUIET) as dm:
        dm.write_wal([Put("note", "a", b"1" * 1000)])
        dm.checkpoint(force=True)
    return path


def noted(path):
    return read_verify(agola_core.open_storage(f"{path}/storage"))


def damage(path, pattern):
    (file,) = path.glob(f"storage/data/{pattern}")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def files(path):
    return {file: file.read_bytes() for file in (path / "storage").rglob("*") if file.is_file()}


def test_what_was_read_and_found_is_kept(store):
    assert agola_core.verify(store) == []
    assert noted(store) is None
    assert agola_core.verify(store, noted_by="ann@here") == []
    first = noted(store)
    assert (first.by, first.found, first.findings) == ("ann@here", 0, ())
    read = {file: data for file, data in files(store).items() if "history" not in file.parts}
    assert first.objects == len(read)
    assert first.size >= sum(map(len, read.values()))
    damage(store, "data/**/*")
    found = agola_core.verify(store, noted_by="ann@here")
    second = noted(store)
    assert (second.found, list(second.findings)) == (len(found), found)
    assert (second.lineage, second.sequence) == (first.lineage, first.sequence)
    with agola_core.open(store, options=QUIET) as dm:
        assert second.lineage == dm.status().lineage
        dm.verify()
    assert noted(store) == second


def test_only_the_first_findings_are_kept(store):
    with agola_core.open(store, options=QUIET) as dm:
        for number in range(MAX_KEPT + 5):
            dm.write_wal([Put("note", str(number), b"")])
            dm.sync()
    for file in store.glob("storage/data/lineages/*/wals/*"):
        file.write_bytes(b"")
    found = agola_core.verify(store, noted_by="x" * 9999)
    kept = noted(store)
    assert kept.found == len(found) > MAX_KEPT
    assert list(kept.findings) == found[:MAX_KEPT]
    assert len(kept.by) < 1000


def lose_coordinator(store):
    for file in store.glob("coordinator.db*"):
        file.unlink()


def take_other_coordinator(store):
    other = store.with_name("other")
    agola_core.open(other, data_types=["note"], options=QUIET).close()
    lose_coordinator(store)
    for file in other.glob("coordinator.db*"):
        shutil.copy(file, store)


def set_coordinator_back(store):
    kept = store.with_name("kept")
    shutil.copytree(store, kept)
    with agola_core.open(store, options=QUIET) as dm:
        dm.write_wal([Put("note", "b", b"2")])
        dm.checkpoint(force=True)
    lose_coordinator(store)
    for file in kept.glob("coordinator.db*"):
        shutil.copy(file, store)


def damage_store_record(store):
    damage(store, "store.json")


@pytest.mark.parametrize("doubt", [lose_coordinator, take_other_coordinator, set_coordinator_back, damage_store_record])
def test_nothing_is_written_where_it_is_not_sure_whose_storage_it_is(store, doubt, caplog):
    doubt(store)
    before = files(store)
    with caplog.at_level(logging.WARNING):
        assert agola_core.verify(store, noted_by="ann@here")
    assert files(store) == before
    assert "not noted" in caplog.text
