"""Tables: point reads, scans, and how many requests they cost."""

import gc
import itertools
import random
import threading
import weakref

import pytest

from agola_core.datamanager.check.data_files import verify_file
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.files.datafile import write_files
from agola_core.datamanager.sstable.files.entries import entry_key
from agola_core.datamanager.sstable.manifest import Run
from agola_core.datamanager.sstable.table import Table, missing_files
from agola_core.datamanager.types import Options
from agola_core.errors import BadRequestError, CorruptionError, NotFoundError
from agola_core.objectstorage.posix.storage import PosixStorage

SMALL = Options(block_size=200, file_size=1000)


class CountingStorage:
    """A storage that counts the ranges that are read from it."""

    def __init__(self, storage):
        self._storage = storage
        self.opened = []
        self.ranges = []

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def read(self, path, offset=0, length=None):
        raise AssertionError("tables read by readers only")

    def open_reader(self, path):
        self.opened.append(path)
        return CountingReader(path, self._storage.open_reader(path), self.ranges)


class CountingReader:
    remote = False

    def __init__(self, path, reader, ranges):
        self._path = path
        self._reader = reader
        self._ranges = ranges

    def read(self, offset, length):
        self._ranges.append((self._path, offset, length))
        return self._reader.read(offset, length)

    def close(self):
        self._reader.close()


@pytest.fixture
def storage(tmp_path, monkeypatch):
    monkeypatch.setattr("agola_core.datamanager.sstable.files.open_file._WHOLE", 0)  # as if its files were large ones
    return CountingStorage(PosixStorage(tmp_path))


@pytest.fixture
def write(storage):
    names = map("{:032x}".format, itertools.count(1)).__next__

    def write(state, *, with_filter, options=SMALL):
        entries = sorted((entry_key(*key), value) for key, value in state.items())
        return write_files(storage, iter(entries), options, names, with_filter=with_filter)

    return write


def numbered(numbers, value=b"value"):
    return {("note", f"{number:04}"): value + b"%d" % number for number in numbers}


def requests(storage, action):
    """Return what an action returned, and how many ranges it read."""
    before = len(storage.ranges)
    return action(), len(storage.ranges) - before


def open_all(table, cache, storage, runs):
    for ref in itertools.chain.from_iterable(runs):
        cache.open(storage, ref)


def test_opening_a_file_is_one_range_and_happens_once_for_all_tables(storage, write, manifest_of):
    refs = write(numbered(range(100)), with_filter=False)
    cache = BlockCache(0)
    assert storage.ranges == []
    for _ in range(3):
        table = Table(storage, manifest_of([refs]), cache)
        for _ in range(3):
            table.get("note", "0000")
    assert storage.opened == [refs[0].path]
    footers = [item for item in storage.ranges if item[1] == refs[0].footer]
    assert len(footers) == 1
    assert len(storage.ranges) == 1 + 9


def test_a_point_read_is_one_range_at_most_and_none_when_the_block_is_kept(storage, write, manifest_of):
    base = numbered(range(300))
    middle = numbered(range(0, 300, 3), b"middle") | {("note", f"{number:04}"): None for number in range(1, 300, 30)}
    newest = numbered(range(0, 300, 7), b"newest") | {("note", f"{number:04}"): None for number in range(2, 300, 30)}
    runs = [
        write(newest, with_filter=True),
        write(middle, with_filter=True),
        write(base, with_filter=False),
    ]
    expected = base | middle | newest
    cold, warm = BlockCache(0), BlockCache()
    for cache in (cold, warm):
        table = Table(storage, manifest_of(runs), cache)
        open_all(table, cache, storage, runs)
        for turn in range(2):
            for (data_type, object_id), value in expected.items():
                got, cost = requests(storage, lambda one=data_type, two=object_id: table.get(one, two))  # noqa: B023
                assert got == value
                assert cost <= (0 if cache is warm and turn else 1)


def test_what_lies_outside_of_all_files_costs_nothing(storage, write, manifest_of):
    refs = write({("note", "m"): b"1", ("note", "p"): b"2"}, with_filter=False)
    table = Table(storage, manifest_of([refs]), BlockCache())
    for key in [("note", "a"), ("note", "z"), ("a", "m"), ("z", "m"), ("note", ""), ("notes", "m")]:
        assert requests(storage, lambda key=key: table.get(*key)) == (None, 0)
    assert storage.opened == []


def test_what_only_a_filter_can_tell_costs_nothing_in_newer_runs(storage, write, manifest_of):
    newer = write(numbered(range(0, 300, 2)), with_filter=True)
    cache = BlockCache(0)
    table = Table(storage, manifest_of([newer, write(numbered([0]), with_filter=False)]), cache)
    open_all(table, cache, storage, [newer])
    for number in range(1, 298, 2):
        assert requests(storage, lambda number=number: table.get("note", f"{number:04}")) == (None, 0)


def test_the_first_and_the_last_id_of_every_file_and_block_are_found(storage, write, manifest_of):
    state = numbered(range(300))
    refs = write(state, with_filter=False)
    assert len(refs) > 3
    table = Table(storage, manifest_of([refs]), BlockCache())
    for ref in refs:
        assert table.get(*ref.first) == state[ref.first]
        assert table.get(*ref.last) == state[ref.last]
    last = refs[-1].last[1]
    assert list(table.scan("note", last)) == []
    assert [key for key, _ in table.scan("note", refs[0].last[1])] == [f"{n:04}" for n in range(refs[0].entries, 300)]
    for before, after in itertools.pairwise(f"{number:04}" for number in range(300)):
        assert next(table.scan("note", before))[0] == after


def test_a_tombstone_hides_what_is_older_from_reads_and_scans(storage, write, manifest_of):
    runs = [
        write({("note", "a"): None, ("note", "b"): b""}, with_filter=True),
        write({("note", "a"): b"old", ("note", "b"): b"old", ("note", "c"): None}, with_filter=True),
        write({("note", "a"): b"oldest", ("note", "c"): b"oldest", ("note", "d"): b"oldest"}, with_filter=False),
    ]
    table = Table(storage, manifest_of(runs), BlockCache())
    assert [table.get("note", key) for key in "abcde"] == [None, b"", None, b"oldest", None]
    assert dict(table.scan("note")) == {"b": b"", "d": b"oldest"}
    assert [key for key, _ in table.entries()] == [b"note\0b", b"note\0d"]


def test_a_type_whose_name_begins_like_anothers_is_not_scanned_with_it(storage, write, manifest_of):
    state = {(name, "x"): name.encode() for name in ["note", "note-1", "note.a", "note0", "noteA", "not", "note_"]}
    table = Table(storage, manifest_of([write(state, with_filter=False)]), BlockCache())
    for name in [*(key[0] for key in state), "no", "notes"]:
        assert list(table.scan(name)) == ([("x", name.encode())] if (name, "x") in state else [])


def test_an_id_that_is_no_text_is_refused(storage, write, manifest_of):
    table = Table(storage, manifest_of([write(numbered(range(3)), with_filter=False)]), BlockCache())
    with pytest.raises(BadRequestError, match="not valid Unicode"):
        table.get("note", "\ud800")
    with pytest.raises(BadRequestError, match="not valid Unicode"):
        list(table.scan("note", "\ud800"))


def test_an_empty_manifest_has_nothing(storage, manifest_of):
    table = Table(storage, manifest_of([]), BlockCache())
    assert table.get("note", "a") is None
    assert list(table.scan("note")) == []
    assert list(table.entries()) == []


def test_a_scan_reads_each_byte_once_in_ranges_that_grow_and_stops_with_its_reader(storage, write, manifest_of):
    state = {("note", f"{number:04}"): random.Random(number).randbytes(1000) for number in range(3000)}
    options = Options(block_size=4000, file_size=2_000_000)
    refs = write(state, with_filter=False, options=options)
    assert len(refs) == 2
    cache = BlockCache()
    table = Table(storage, manifest_of([refs]), cache)
    open_all(table, cache, storage, [refs])
    found, cost = requests(storage, lambda: dict(table.scan("note")))
    assert found == {key: value for (_, key), value in state.items()}
    ranges = storage.ranges[-cost:]
    assert cost == 6 + 2
    for ref in refs:
        own = [(offset, length) for path, offset, length in ranges if path == ref.path]
        assert own[0][0] == 13
        assert own[-1][0] + own[-1][1] == ref.footer
        assert all(offset + length == after for (offset, length), (after, _) in itertools.pairwise(own))
        assert (own[0][1] <= 32 * 1024 + 5000) == (ref is refs[0])  # the scan goes on as it ended in the file before
        assert max(length for _, length in own) <= (1 << 20)
    assert requests(storage, lambda: next(table.scan("note", "0150")))[1] == 1


def test_a_large_value_is_read_without_its_neighbours(storage, write, manifest_of):
    large = random.Random(1).randbytes(500_000)
    refs = write({("note", "a"): b"1", ("note", "b"): large, ("note", "c"): b"2"}, with_filter=False, options=Options())
    cache = BlockCache(0)
    table = Table(storage, manifest_of([refs]), cache)
    open_all(table, cache, storage, [refs])
    for key, size in [("a", 100), ("b", 500_000), ("c", 100)]:
        assert requests(storage, lambda key=key: table.get("note", key) is not None) == (True, 1)
        assert storage.ranges[-1][2] <= size


def test_a_large_value_does_not_push_out_the_blocks_that_are_kept(storage, write, manifest_of):
    state = {("note", "a"): b"1", ("note", "b"): random.Random(1).randbytes(50_000), ("note", "c"): b"2"}
    table = Table(storage, manifest_of([write(state, with_filter=False, options=Options())]), BlockCache(100_000))
    for key in ["a", "b", "c", "b"]:
        table.get("note", key)
    assert requests(storage, lambda: table.get("note", "a")) == (b"1", 0)
    assert requests(storage, lambda: len(table.get("note", "b"))) == (50_000, 1)


def test_the_cache_keeps_the_blocks_that_were_used_last_within_its_limit(storage, write, manifest_of):
    refs = write(numbered(range(300)), with_filter=False)
    table = Table(storage, manifest_of([refs]), BlockCache())
    table.get("note", "0000")
    size, first, before = table._cache._size, storage.ranges[-1][1:], len(storage.ranges)
    cache = BlockCache(10 * size)
    table = Table(storage, manifest_of([refs]), cache)
    ids = [f"{number:04}" for number in range(300)]
    for object_id in ids:
        table.get("note", "0000")
        table.get("note", object_id)
        assert cache._size == sum(block.size for block in cache._blocks.values()) <= 10 * size
    assert storage.ranges[before:].count((refs[0].path, *first)) == 1
    assert requests(storage, lambda: table.get("note", "0000")) == (b"value0", 0)
    assert requests(storage, lambda: table.get("note", "0299")) == (b"value299", 0)
    assert requests(storage, lambda: table.get("note", "0020")) == (b"value20", 1)


def test_descriptors_are_bounded_and_those_in_use_stay_and_no_index_is_read_twice(storage, write, manifest_of):
    refs = write(numbered(range(300)), with_filter=False, options=Options(block_size=200, file_size=300))
    assert len(refs) >= 8
    cache = BlockCache(0, open_files=4)
    table = Table(storage, manifest_of([refs]), cache)
    for _ in range(3):
        for ref in refs[1:]:
            table.get(*refs[0].first)
            table.get(*ref.first)
    assert storage.opened.count(refs[0].path) <= 2
    assert all(storage.opened.count(ref.path) == 3 for ref in refs[1:])
    assert len(cache._descriptors) == 4
    assert sum(file.has_descriptor for file in cache._files.values()) == 4
    footers = {ref.path: ref.footer for ref in refs}
    assert sum(offset == footers[path] for path, offset, _ in storage.ranges) == len(refs) == len(cache._files)
    assert cache._index_size == sum(file.size for file in cache._files.values())


def test_descriptors_are_bounded_where_an_older_reader_of_a_file_opens_it_again(storage, write):
    refs = write(numbered(range(300)), with_filter=False, options=Options(block_size=200, file_size=300))
    cache = BlockCache(0, open_files=2)
    first, second, third = (cache.open(storage, ref) for ref in refs[:3])
    assert not first.has_descriptor
    cache.keep_only({ref.path for ref in refs[1:]})
    again = cache.open(storage, refs[0])
    assert again is not first
    assert first.read(0).size == again.read(0).size
    last = cache.open(storage, refs[3])
    assert sum(file.has_descriptor for file in (first, second, third, again, last)) == 2


def test_indexes_are_bounded_by_their_bytes_too(storage, write, manifest_of):
    refs = write(numbered(range(300)), with_filter=True)
    cache = BlockCache(0, index_limit=1)
    table = Table(storage, manifest_of([refs]), cache)
    assert dict(table.scan("note")) == {key: value for (_, key), value in numbered(range(300)).items()}
    assert len(cache._files) == 1


def test_many_threads_open_a_file_once_and_read_the_same(storage, write, manifest_of):
    state = numbered(range(300))
    refs = write(state, with_filter=False)
    cache = BlockCache(2000, open_files=len(refs))
    table = Table(storage, manifest_of([refs]), cache)
    start = threading.Barrier(8)
    wrong = []

    def work(seed):
        keys = list(state)
        random.Random(seed).shuffle(keys)
        start.wait()
        wrong.extend(key for key in keys if table.get(*key) != state[key])
        if dict(table.scan("note")) != {key: value for (_, key), value in state.items()}:
            wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(storage.opened) == sorted(ref.path for ref in refs)
    assert cache._size == sum(block.size for block in cache._blocks.values()) <= 2000


def test_missing_files_are_named_by_one_listing(storage, write):
    refs = write(numbered(range(100)), with_filter=False)
    runs = [Run((ref,)) for ref in refs]
    assert missing_files(storage, runs) == []
    assert missing_files(storage, []) == []
    storage.delete(refs[1].path)
    assert missing_files(storage, runs) == [refs[1].path]
    with pytest.raises(NotFoundError):
        storage.stat(refs[1].path)


def test_a_small_file_is_read_by_one_range_for_all_its_objects(storage, write, manifest_of, monkeypatch):
    (small,) = write(numbered(range(20)), with_filter=False)
    (large,) = write(numbered(range(21)), with_filter=False)
    assert large.size > small.size
    monkeypatch.setattr("agola_core.datamanager.sstable.files.open_file._WHOLE", small.size)
    for ref, ranges in ((small, 1), (large, 3)):
        table = Table(storage, manifest_of([[ref]]), BlockCache())
        assert requests(storage, lambda: [table.get("note", key) for key in ("0000", "0019")])[1] == ranges  # noqa: B023


class RemoteStorage(CountingStorage):
    """A storage as on a network: its readers open nothing before their first read."""

    def open_reader(self, path):
        return RemoteReader(self, path)


class RemoteReader:
    remote = True

    def __init__(self, storage, path):
        self._storage = storage
        self._path = path

    def read(self, offset, length):
        self._storage.ranges.append((self._path, offset, length))
        self._storage.asked.release()
        return self._storage._storage.read(self._path, offset, length)

    def close(self):
        pass


@pytest.fixture
def remote(storage):
    remote = RemoteStorage(storage._storage)
    remote.asked = threading.Semaphore(0)
    return remote


def test_a_long_scan_of_a_remote_file_asks_for_the_next_ranges_before_it_needs_them(remote, write, manifest_of):
    state = {("note", f"{number:05}"): random.Random(number).randbytes(1000) for number in range(8000)}
    (ref,) = write(state, with_filter=False, options=Options(block_size=4000, file_size=1 << 30))
    table = Table(remote, manifest_of([[ref]]), BlockCache())
    scan = table.scan("note")
    found = [next(scan) for _ in range(1100)]  # 32, 64, 128, 256, 512 KiB and 1 MiB; the last of them is in use
    for _ in range(1 + 6 + 1):  # the footer and these; and one more, though nobody has come to its entries
        assert remote.asked.acquire(timeout=30)
    found += scan
    assert dict(found) == {key: value for (_, key), value in state.items()}
    own = sorted(remote.ranges)[:-1]
    assert [offset for _, offset, _ in own] == [13, *(offset + length for _, offset, length in own[:-1])]
    remote.ranges.clear()
    assert len(list(itertools.islice(table.scan("note"), 400))) == 400
    assert sum(length for _, _, length in remote.ranges) <= 500_000  # a short one reads nothing ahead


def test_a_remote_file_is_verified_by_reading_each_byte_once(remote, write):
    state = {("note", f"{number:05}"): random.Random(number).randbytes(1000) for number in range(9000)}
    (ref,) = write(state, with_filter=True, options=Options(file_size=1 << 30))
    assert list(verify_file(remote, ref)) == []
    assert sum(length for _, _, length in remote.ranges) == ref.size + 1  # a byte more: longer files are noticed
    assert len(remote.ranges) == 1 + 3
    assert {path for path, _, _ in remote.ranges} == {ref.path}
    damaged = bytearray(remote._storage.read(ref.path))
    damaged[6_000_000] ^= 1
    remote._storage.write(ref.path, damaged)
    (finding,) = verify_file(remote, ref)
    assert finding.offset <= 6_000_000 < finding.offset + 17_000


def test_a_remote_file_that_is_missing_is_damage_and_no_missing_object(remote, write, manifest_of):
    """A remote storage says at the first read that there is no object; readers must not take that for theirs."""
    (large,) = write(numbered(range(100)), with_filter=False, options=Options())
    cache = BlockCache(0)
    opened = Table(remote, manifest_of([[large]]), cache)
    assert opened.get("note", "0001") == b"value1"
    remote._storage.delete(large.path)
    fresh = Table(remote, manifest_of([[large]]), BlockCache())
    for table in (opened, fresh):
        for read in (lambda table: table.get("note", "0001"), lambda table: list(table.scan("note"))):
            with pytest.raises(CorruptionError, match="the data file is missing"):
                read(table)
    assert [finding.message for finding in verify_file(remote, large)] == ["the data file is missing"]


def test_a_closed_file_that_is_missing_is_damage_to_scans_as_to_point_reads(storage, write, manifest_of):
    refs = write(numbered(range(300)), with_filter=False, options=Options(block_size=200, file_size=300))
    table = Table(storage, manifest_of([refs]), BlockCache(0, open_files=1))
    assert len(list(table.scan("note"))) == 300
    storage.delete(refs[0].path)  # its index is still known, and its descriptor closed
    for read in (
        lambda: table.get(*refs[0].last),
        lambda: list(table.scan("note")),
        lambda: list(table.scan_back("note")),
    ):
        with pytest.raises(CorruptionError, match="the data file is missing"):
            read()


def test_the_files_of_a_cache_that_is_dropped_are_closed_at_once(storage, write, manifest_of):
    """Also while the garbage collector does not run: a descriptor has a name, and the disk keeps a deleted file."""
    refs = write(numbered(range(50)), with_filter=False)
    readers = []
    opened = storage.open_reader

    def open_reader(path):
        reader = opened(path)
        readers.append(weakref.ref(reader))
        return reader

    storage.open_reader = open_reader
    gc.disable()
    try:
        table = Table(storage, manifest_of([refs]), BlockCache())
        assert len(list(table.scan("note"))) == 50
        assert readers
        assert all(reader() is not None for reader in readers)
        del table
        assert [reader() for reader in readers if reader() is not None] == []
    finally:
        gc.enable()
