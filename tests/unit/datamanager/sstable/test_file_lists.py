"""Runs that are named by lists: what is written, read, shared, collected, damaged and repaired."""

import gc
import random
import shutil
import weakref

import msgspec
import pytest

import agola_core
from agola_core import CorruptionError, FormatError, Options, Put
from agola_core.datamanager.check.verify import verify_manifest
from agola_core.datamanager.format.checksummed import encode_checksummed
from agola_core.datamanager.sstable.file_lists import make_run, paths, walk, walk_back
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.files.datafile import write_files
from agola_core.datamanager.sstable.files.entries import entry_key
from agola_core.datamanager.sstable.manifest import Run
from agola_core.datamanager.sstable.table import Table
from agola_core.objectstorage.posix.storage import PosixStorage
from agola_core.runtime import faultpoints
from agola_core.runtime.faultpoints import InjectedFaultError

OPTIONS = Options(background=False, block_size=400, file_size=200, retain_wals=100, grace_period=0)
BASE = {f"{number:04}": random.Random(number).randbytes(1000) for number in range(70)}


def open_store(path, **changes):
    return agola_core.open(path, data_types=["n"], options=msgspec.structs.replace(OPTIONS, **changes))


def manifest(dm):
    return dm._store.log.view.manifest


def files(path, pattern):
    return sorted((path / "storage" / "data").glob(pattern))


def lists_of(dm):
    """Return the paths of the lists of a store's last run, its topmost one first."""
    run = manifest(dm).runs[-1]
    data = {ref.path for ref, _ in walk(dm.storage, BlockCache(), run)}
    return [path for path in paths(dm.storage, BlockCache(), run) if path not in data]


def contents(path):
    with open_store(path) as dm:
        return dict(dm.list_objects("n"))


def fill(dm):
    """Write one run in lists."""
    dm.write_wal([Put("n", key, data) for key, data in BASE.items()])
    dm.checkpoint(force=True)


def enlarge(dm):
    """Write another, which takes the first one in, so that the manifests before have what this one has not."""
    dm.write_wal([Put("n", key, data[::-1]) for key, data in BASE.items()])
    dm.checkpoint(force=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with a checkpoint before its lists, in which the WALs after it remain."""
    path = tmp_path_factory.mktemp("lists") / "store"
    with open_store(path) as dm:
        dm.write_wal([Put("n", "first", b"1")])
        dm.checkpoint(force=True)
        fill(dm)
        assert manifest(dm).runs[-1].depth > 1
        dm.write_wal([Put("n", "later", b"1")])
        dm.checkpoint(force=True)
        dm.sync()
    return path


@pytest.fixture
def store(made, tmp_path):
    return shutil.copytree(made, tmp_path / "store")


def test_lists_are_written_with_their_run_and_named_again_by_the_next_manifests(tmp_path):
    with open_store(tmp_path, block_size=16 * 1024, file_size=1) as dm:
        dm.write_wal([Put("n", f"{number:04}", bytes(20_000)) for number in range(80)])
        dm.checkpoint(force=True)
        (run,) = manifest(dm).runs
        assert (run.depth, run.totals.files, dm.status().data_files) == (1, 80, 80)
        for number in range(3):
            before = {*files(tmp_path, "**/*")}
            dm.write_wal([Put("n", f"later-{number}", b"1")])
            dm.checkpoint(force=True)
            written = [path for path in {*files(tmp_path, "**/*")} - before if path.suffix in {".data", ".json"}]
            assert sorted(path.suffix for path in written) == [".data", ".json"]
            assert max(path.stat().st_size for path in written) < 3000
            assert manifest(dm).runs[-1] == run


def test_a_point_read_is_one_range_read_once_lists_and_footers_are_known(tmp_path, manifest_of):
    class Counting(PosixStorage):
        reads = 0

        def open_reader(self, path):
            reader, real = super().open_reader(path), None
            real = reader.read

            def read(offset, length):
                Counting.reads += 1
                return real(offset, length)

            reader.read = read
            return reader

    storage, options = Counting(tmp_path), Options(block_size=100, file_size=200)
    names = map("{:032x}".format, range(10**6))
    entries = [(entry_key("n", f"{number:04}"), bytes([number % 250]) * 30) for number in range(0, 600, 2)]
    refs = write_files(storage, iter(entries), options, names.__next__, with_filter=False)
    run = make_run(storage, refs, options, names.__next__)
    assert run.depth > 1
    whole = manifest_of([[]])
    cache = BlockCache()
    table = Table(storage, msgspec.structs.replace(whole, runs=(run,)), cache)
    assert table.get("n", "0100") is not None
    before = Counting.reads
    assert table.get("n", "0100") is not None
    assert Counting.reads == before
    for number in range(600):  # those that lie between two files, before the first and after the last, too
        expected = None if number % 2 else bytes([number % 250]) * 30
        assert table.get("n", f"{number:04}") == expected
    assert (table.get("n", "/"), table.get("n", ":"), table.get("m", "0000")) == (None, None, None)
    cache.keep_only({ref.path for ref in run.files})
    before = Counting.reads
    assert table.get("n", "0100") is not None
    assert Counting.reads == before  # what is below the files that a manifest names stays as they do
    cache.keep_only(set())
    assert not cache._files
    assert not cache._blocks
    assert cache._size == 0


def test_a_collector_keeps_shared_lists_and_takes_those_of_a_publisher_that_was_killed(store):
    with open_store(store) as dm:
        shared = {*lists_of(dm)}
        dm.write_wal([Put("n", key, data[::-1]) for key, data in BASE.items()])
        kept = {path.name for path in files(store, "data/*")}
        with (
            faultpoints.arm(faultpoints.trigger("checkpoint.before-manifest:1:raise")),
            pytest.raises(InjectedFaultError),
        ):
            dm.checkpoint(force=True)
        orphans = {path.name for path in files(store, "data/*")} - kept
        assert orphans
        collected = {garbage.path for garbage in dm.collect_garbage()}
        assert {f"data/{name}" for name in orphans} <= collected
        assert not shared & collected
        assert dm.verify() == []
        for _ in range(2):
            enlarge(dm)  # the first one's run is in no manifest any more once this is not retained
        with open_store(store, retain_manifests=1) as alone:
            collected = {garbage.path for garbage in alone.collect_garbage()}
        assert shared & collected == set()  # the other instance may read it
    with open_store(store, retain_manifests=1) as dm:
        assert shared <= {garbage.path for garbage in dm.collect_garbage()}
        assert dm.verify() == []


def test_a_cache_goes_with_those_who_walked_through_lists_by_it(store):
    """A cycle would keep what it holds, indexes and descriptors, until Python's collector comes."""
    with open_store(store) as dm:
        cache, run = BlockCache(), manifest(dm).runs[-1]
        gone = weakref.ref(cache)
        gc.disable()
        try:
            assert {path for _, path in walk(dm.storage, cache, run)} < {*paths(dm.storage, cache, run)}
            assert [*walk_back(dm.storage, cache, run, b"\xff")]
            del cache
            assert gone() is None
        finally:
            gc.enable()


@pytest.mark.parametrize("harm", ["missing", "flipped"])
@pytest.mark.parametrize("which", [0, -1])
def test_a_damaged_list_makes_those_manifests_unreadable_that_need_it(store, harm, which):
    expected = contents(store)
    with open_store(store) as dm:
        path = lists_of(dm)[which]
        before, after = dm.checkpoints()[1], dm.checkpoints()[-1]
    file = store / "storage" / "data" / path
    whole = file.read_bytes()
    if harm == "missing":
        file.unlink()
    else:
        file.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])
    assert path in {finding.path for finding in agola_core.verify(store)}
    with open_store(store) as dm:
        with pytest.raises(CorruptionError, match=path):
            dict(dm.list_objects("n"))
        data = {path.name for path in files(store, "data/*")}
        with pytest.raises(CorruptionError, match=path):
            dm.collect_garbage()
        assert {path.name for path in files(store, "data/*")} == data
    with agola_core.open(store, data_types=["n"], at=before.sequence) as past:
        assert dict(past.list_objects("n")) == {"first": b"1"}
    with agola_core.open(store, data_types=["n"], at=after.sequence) as past:  # the older manifest and the WALs
        assert dict(past.list_objects("n")) == expected
    recovered = shutil.copytree(store, store.with_name("recovered"))
    for name in recovered.glob("coordinator.db*"):
        name.unlink()
    assert contents(recovered) == expected
    (done,) = agola_core.repair(store)
    assert (done.done, "from manifest 2" in done.message) == (True, True)
    assert contents(store) == expected
    with open_store(store) as dm:
        assert {finding.path for finding in dm.verify()} <= {path}  # of the manifests before, which are retained
        dm.collect_garbage()


def test_a_list_that_names_something_else_is_corrupt(tmp_path, manifest_of):
    storage = PosixStorage(tmp_path)
    names = map("{:032x}".format, range(10**6))
    entries = [(entry_key("n", f"{number:04}"), bytes(300)) for number in range(9)]
    refs = write_files(storage, iter(entries), OPTIONS, names.__next__, with_filter=False)
    good = make_run(storage, refs, OPTIONS, names.__next__)
    wrong = [b"", b"{}", b"[]", None, msgspec.json.encode(refs[0]), msgspec.json.encode(refs[-1])[:-1]]
    for value in wrong:
        (bad,) = write_files(
            storage, iter([(entry_key(*refs[-1].last), value)]), OPTIONS, names.__next__, with_filter=False
        )
        manifest = msgspec.structs.replace(manifest_of([[]]), runs=(Run((bad,), 1, good.totals),))
        table = Table(storage, manifest, BlockCache())
        for read in (lambda: table.get("n", "0000"), lambda: list(table.scan("n")), lambda: list(table.scan_back("n"))):  # noqa: B023
            with pytest.raises(CorruptionError, match=bad.path):
                read()
        assert bad.path in {finding.path for finding in verify_manifest(storage, manifest, "m", set())}
    more = msgspec.structs.replace(good.totals, entries=10)
    manifest = msgspec.structs.replace(manifest_of([[]]), runs=(Run(good.files, good.depth, more),))
    assert any("has the totals" in finding.message for finding in verify_manifest(storage, manifest, "m", set()))


def test_a_repair_leaves_what_a_later_release_wrote(store):
    path = files(store, "lineages/*/manifests/*")[-1]
    fields = msgspec.json.decode(path.read_bytes().splitlines()[0])
    path.write_bytes(encode_checksummed(msgspec.Raw(msgspec.json.encode(fields | {"format": 3}))))
    before = {file: file.read_bytes() for file in files(store, "**/*") if file.is_file()}
    with pytest.raises(FormatError, match="format 3, newer than 2"):
        agola_core.repair(store)
    assert {file: file.read_bytes() for file in files(store, "**/*") if file.is_file()} == before


def test_an_import_and_a_compaction_of_many_files_make_lists(store, tmp_path):
    expected = contents(store)
    with (store / "export").open("wb") as file, open_store(store) as dm:
        dm.export(file)
        done = dm.compact()
        assert (done.files, manifest(dm).data_files) == (manifest(dm).runs[0].totals.files,) * 2
        assert dict(dm.list_objects("n")) == expected
    with open_store(tmp_path / "other") as dm:
        with (store / "export").open("rb") as file:
            dm.import_(file)
        assert manifest(dm).runs[-1].depth > 1
        assert dict(dm.list_objects("n")) == expected
        assert dm.verify() == []
