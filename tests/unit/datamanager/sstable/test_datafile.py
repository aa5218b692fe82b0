"""Data files: what is written, how it is split, and what a writer does when something fails."""

import hashlib
import itertools
import random

import pytest

from agola_core.datamanager.check.data_files import Finding, verify_file
from agola_core.datamanager.format import layout
from agola_core.datamanager.sstable.files.block import LONE_PLAIN, LONE_ZSTD, PLAIN, ZSTD, encode_lone
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.files.datafile import read_footer, write_files
from agola_core.datamanager.sstable.files.entries import entry_key, merge, split_key
from agola_core.datamanager.sstable.files.open_file import open_file
from agola_core.datamanager.sstable.manifest import Run
from agola_core.datamanager.sstable.table import scan_run
from agola_core.datamanager.types import Options
from agola_core.errors import CorruptionError
from agola_core.objectstorage.posix.storage import PosixStorage
from agola_core.runtime import faultpoints
from agola_core.runtime.faultpoints import InjectedFaultError
from tests.support.manifests import verify_data_files

SMALL = Options(block_size=100, file_size=400)
NOISE = random.Random(1).randbytes(3 << 20)


def names():
    return map("{:032x}".format, itertools.count(1)).__next__


def numbered(count, size=20):
    return [(entry_key("note", f"{number:04}"), NOISE[number : number + size]) for number in range(count)]


@pytest.fixture
def storage(tmp_path):
    return PosixStorage(tmp_path)


def write(storage, entries, options=SMALL, *, with_filter=False):
    return write_files(storage, iter(entries), options, names(), with_filter=with_filter)


def read_back(storage, refs):
    return list(scan_run(storage, BlockCache(), Run(tuple(refs))))


def codings(storage, ref):
    return list(read_footer(storage.open_reader(ref.path), ref).codings)


@pytest.mark.parametrize(
    ("data_type", "object_id"), [("note", "a"), ("a", "\0"), ("n-1.x", "x\0y\0"), ("note", "ä/€\U0001f600")]
)
def test_a_key_is_split_where_it_was_joined(data_type, object_id):
    assert split_key(entry_key(data_type, object_id)) == (data_type, object_id)


def test_keys_sort_by_data_type_then_by_the_bytes_of_the_id():
    pairs = [("a", "z"), ("a-b", "a"), ("a.b", "a"), ("a0", "\0"), ("a0", "é"), ("a0", "\uffff"), ("a0", "\U0001f600")]
    assert [split_key(key) for key in sorted(entry_key(*pair) for pair in reversed(pairs))] == pairs


def test_no_entries_make_no_file(storage):
    assert write(storage, []) == []
    assert list(storage.list()) == []


def test_entries_are_split_into_files_that_follow_each_other(storage):
    entries = numbered(100)
    refs = write(storage, entries)
    assert len(refs) > 3
    assert read_back(storage, refs) == entries
    assert sum(ref.entries for ref in refs) == 100
    assert [entry_key(*ref.first) for ref in refs] == sorted(entry_key(*ref.first) for ref in refs)
    for ref in refs:
        data = storage.read(ref.path)
        assert (len(data), hashlib.blake2b(data, digest_size=32).hexdigest()) == (ref.size, ref.digest)
        assert list(verify_file(storage, ref)) == []
    for before, after in itertools.pairwise(refs):
        assert before.last < after.first
    for full in refs[:-1]:
        assert full.footer >= SMALL.file_size


def test_what_compresses_well_is_split_by_its_size_before_compression(storage):
    entries = [(entry_key("note", f"{number:04}"), b"same " * 20) for number in range(200)]
    refs = write(storage, entries, Options(block_size=1000, file_size=2000))
    assert len(refs) > 2
    assert all(ref.size < 2000 for ref in refs)
    assert all(8000 <= ref.raw < 9200 for ref in refs[:-1])
    assert read_back(storage, refs) == entries


def test_blocks_are_compressed_where_that_gains_and_large_values_stand_alone(storage):
    entries = [
        (entry_key("note", "1"), NOISE[:90]),
        (entry_key("note", "2"), NOISE[90:95]),
        (entry_key("note", "3"), b"z" * 99),
        (entry_key("note", "4"), b"y" * 99),
        (entry_key("note", "5"), NOISE[:100]),
        (entry_key("note", "6"), b"x" * 100),
        (entry_key("note", "7"), None),
    ]
    (ref,) = write(storage, entries, Options(block_size=100, file_size=100_000))
    assert codings(storage, ref) == [PLAIN, ZSTD, ZSTD, LONE_PLAIN, LONE_ZSTD, PLAIN]
    assert read_back(storage, [ref]) == entries
    assert (ref.entries, ref.tombstones) == (7, 1)


def test_a_large_value_that_does_not_compress_is_written_as_it_is_without_a_copy(storage):
    assert encode_lone(NOISE) == (NOISE, LONE_PLAIN)
    assert encode_lone(NOISE)[0] is NOISE
    noisy, gap = [NOISE[start : start + (1 << 17)] for start in (0, 1 << 20, 2 << 20)], b"z" * (1 << 20)
    sampled = gap.join(noisy)
    assert encode_lone(sampled)[1] == LONE_PLAIN  # judged by samples, not by a second copy of the whole
    text = b"a line of a log that compresses\n" * 100_000
    stored, coding = encode_lone(text)
    assert coding == LONE_ZSTD
    assert len(stored) < len(text) / 100
    entries = [(entry_key("note", "a"), NOISE), (entry_key("note", "b"), b""), (entry_key("note", "c"), text)]
    assert read_back(storage, write(storage, entries, Options())) == entries


def test_empty_values_and_tombstones_are_different(storage):
    entries = [(entry_key("note", "a"), b""), (entry_key("note", "b"), None), (entry_key("note", "c"), b"")]
    refs = write(storage, entries)
    assert read_back(storage, refs) == entries
    assert [ref.tombstones for ref in refs] == [1]


@pytest.mark.parametrize("second", [b"note\x00a", b"note\x00", b"a"])
def test_entries_out_of_order_are_refused_and_leave_no_file(storage, second):
    with pytest.raises(CorruptionError, match="does not follow"):
        write(storage, [(entry_key("note", "a"), b""), (second, b"")])
    assert list(storage.list()) == []


def test_entries_out_of_order_are_refused_where_one_file_ends_and_the_next_begins(storage):
    entries = numbered(100)
    first = write(storage, entries)[0]
    cut = first.entries
    with pytest.raises(CorruptionError, match="does not follow"):
        write(storage, [*entries[:cut], entries[0], *entries[cut:]])


def test_a_writer_that_fails_in_the_middle_leaves_only_whole_files(storage):
    def failing():
        yield from numbered(100)
        raise ValueError("the source failed")

    whole = write(storage, numbered(100))
    with pytest.raises(ValueError, match="the source failed"):
        write(storage, failing())
    assert [info.path for info in storage.list()] == [ref.path for ref in whole]


def test_every_file_is_preceded_by_its_fault_point_and_by_the_callers_check(storage):
    checks = []
    with (
        faultpoints.arm(faultpoints.trigger("checkpoint.before-data-file:3:raise")),
        pytest.raises(InjectedFaultError),
    ):
        write_files(
            storage, iter(numbered(100)), SMALL, names(), with_filter=True, check=lambda: checks.append(len(checks))
        )
    assert checks == [
        0,
        1,
    ]  # directly before the write, so that a process paused at the point is checked when it goes on
    assert [info.path for info in storage.list()] == [layout.data_file(f"{number:032x}") for number in (1, 2)]


def test_the_newest_source_wins_a_merge():
    new, middle, old = [(b"a", None), (b"c", b"3")], [(b"b", b"2"), (b"c", None)], [(b"a", b"1"), (b"d", b"1")]
    assert list(merge([iter(new), iter(middle), iter(old)], drop_tombstones=False)) == [
        (b"a", None),
        (b"b", b"2"),
        (b"c", b"3"),
        (b"d", b"1"),
    ]
    assert [key for key, _ in merge([iter(new), iter(middle), iter(old)], drop_tombstones=True)] == [b"b", b"c", b"d"]
    assert list(merge([iter(new)], drop_tombstones=True)) == [(b"c", b"3")]


def test_blocks_tell_what_they_have_without_the_others(storage):
    entries = numbered(30)
    (ref,) = write(storage, entries, Options(block_size=200, file_size=100_000))
    file = open_file(storage, ref)
    found = 0
    for index, last_key in enumerate(file.last_keys):
        block = file.read(index)
        for key, value in entries:
            has, got = block.find(key)
            found += has
            assert got == (value if has else None)
        assert block.find(last_key)[0]
        assert list(block.entries(last_key)) == [entry for entry in entries if entry[0] == last_key]
    assert found == len(entries)


def test_verification_tells_when_files_overlap_or_the_oldest_run_has_tombstones(storage, manifest_of):
    refs = write(storage, numbered(100))
    assert verify_data_files(storage, manifest_of([refs])) == []
    swapped = [refs[1], refs[0], *refs[2:]]
    assert [finding.path for finding in verify_data_files(storage, manifest_of([swapped]))] == [refs[0].path]
    deletes = write_files(storage, iter([(b"note\0a", None)]), SMALL, lambda: "f" * 32, with_filter=True)
    assert verify_data_files(storage, manifest_of([deletes, refs])) == []
    assert verify_data_files(storage, manifest_of([deletes])) == [
        Finding(deletes[0].path, 0, "a file of the oldest run has tombstones")
    ]
