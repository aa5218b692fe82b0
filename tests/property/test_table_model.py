"""Tables of any runs against plain dictionaries: blocks and files of a few bytes, so every boundary is met."""

import itertools
import tempfile
from datetime import UTC, datetime

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from agola_core.datamanager.sstable.file_lists import make_run, walk
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.files.datafile import write_files
from agola_core.datamanager.sstable.files.entries import entry_key, merge
from agola_core.datamanager.sstable.manifest import Manifest, Origin, decode_manifest, encode_manifest
from agola_core.datamanager.sstable.table import Table, scan_run, scan_run_back
from agola_core.datamanager.types import Options
from agola_core.objectstorage.posix.storage import PosixStorage
from agola_core.sequence import Sequence
from tests.support.manifests import verify_data_files

TYPES = ["a", "a-b", "a0", "b"]
ALPHABET = "ab\0\x01é\uffff\U0001f600"

data_types = st.sampled_from(TYPES)
ids = st.text(ALPHABET, min_size=1, max_size=4) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
values = st.binary(max_size=8) | st.binary(max_size=1).map(lambda byte: byte * 70) | st.binary(min_size=60, max_size=90)
layers = st.dictionaries(st.tuples(data_types, ids), values | st.none(), max_size=25)
bases = st.dictionaries(st.tuples(data_types, ids), values, max_size=40)
sizes = st.builds(Options, block_size=st.integers(1, 200), file_size=st.integers(1, 600))
caches = st.builds(BlockCache, st.sampled_from([0, 3000, 1 << 20]), st.integers(1, 4))


def entries_of(state):
    return iter(sorted((entry_key(*key), value) for key, value in state.items()))


def fold(states):
    """Return what is left of some states, newest first."""
    result = {}
    for state in reversed(states):
        result |= state
    return result


def alive(state):
    return {key: value for key, value in state.items() if value is not None}


class Store:
    """Runs written from states, newest first."""

    def __init__(self, directory, options, states):
        self.storage = PosixStorage(directory)
        self.options = options
        self._names = map("{:032x}".format, itertools.count(1))
        last = len(states) - 1
        self.runs = [self.write(entries_of(state), with_filter=index < last) for index, state in enumerate(states)]

    def write(self, entries, *, with_filter):
        files = write_files(self.storage, entries, self.options, self._names.__next__, with_filter=with_filter)
        return make_run(self.storage, files, self.options, self._names.__next__)

    def table(self, runs, cache):
        manifest = Manifest(
            number=1,
            epoch=1,
            lineage="0123456789abcdef",
            position=str(Sequence(1, 0)),
            created=datetime(2019, 7, 1, tzinfo=UTC),
            data_types=tuple(TYPES),
            runs=tuple(runs),
            origin=Origin.CHECKPOINT,
        )
        manifest = decode_manifest(encode_manifest(manifest), "m")
        assert verify_data_files(self.storage, manifest) == []
        return Table(self.storage, manifest, cache)


def check(table, state):
    """Compare all that a table says with a state."""
    for (data_type, object_id), value in state.items():
        assert table.get(data_type, object_id) == value
    for data_type in TYPES:
        expected = sorted(
            ((key[1], value) for key, value in state.items() if key[0] == data_type), key=lambda item: item[0].encode()
        )
        assert list(table.scan(data_type)) == expected
        for index, (object_id, _) in enumerate(expected):
            assert list(table.scan(data_type, object_id)) == expected[index + 1 :]
    assert list(table.entries()) == list(entries_of(state))


@settings(max_examples=150, deadline=None)
@given(options=sizes, base=bases, deltas=st.lists(layers, max_size=3), cache=caches, others=st.lists(ids, max_size=8))
def test_a_table_is_its_runs_folded_and_merging_some_changes_nothing(options, base, deltas, cache, others):
    states = [*deltas, base]
    with tempfile.TemporaryDirectory() as directory:
        store = Store(directory, options, states)
        state = alive(fold(states))
        table = store.table(store.runs, cache)
        check(table, state)
        for data_type, object_id in itertools.product(TYPES, [*others, *(key[1] for key in fold(states))]):
            assert table.get(data_type, object_id) == state.get((data_type, object_id))
            ids_after = [key for key, _ in table.scan(data_type, object_id)]
            wanted = [key[1] for key in state if key[0] == data_type and key[1].encode() > object_id.encode()]
            assert ids_after == sorted(wanted, key=str.encode)
        for count in range(1, len(states) + 1):  # as a checkpoint merges them
            kept = store.runs[count:]
            sources = [scan_run(store.storage, cache, run) for run in store.runs[:count]]
            merged = store.write(merge(sources, drop_tombstones=not kept), with_filter=bool(kept))
            check(store.table([merged, *kept], cache), state)


@settings(max_examples=150, deadline=None)
@given(options=sizes, state=layers, with_filter=st.booleans(), data=st.data())
def test_a_run_gives_back_any_stretch_of_its_entries(options, state, with_filter, data):
    with tempfile.TemporaryDirectory() as directory:
        store = Store(directory, options, [])
        run = store.write(entries_of(state), with_filter=with_filter)
        entries = list(entries_of(state))
        assert list(scan_run(store.storage, BlockCache(), run)) == entries
        files = [ref for ref, _ in walk(store.storage, BlockCache(), run)]
        assert (run.totals.files, run.totals.size) == (len(files), sum(ref.size for ref in files))
        assert (run.entries, run.tombstones) == (len(entries), sum(value is None for _, value in entries))
        assert len(run.files) <= 2 or len(msgspec.json.encode(run.files)) <= options.block_size
        edges = st.binary(max_size=4) | st.sampled_from([b"", *(entry_key(*ref.last) for ref in files)])
        edges |= st.sampled_from([b"", *(entry_key(*ref.first) for ref in files), *(key for key, _ in entries)])
        low, high = sorted([data.draw(edges), data.draw(edges)])
        stretch = list(scan_run(store.storage, BlockCache(), run, low, high))
        assert stretch == [entry for entry in entries if low <= entry[0] and (not high or entry[0] < high)]
        back = list(scan_run_back(store.storage, BlockCache(), run, low, high))
        assert back == [entry for entry in reversed(entries) if low <= entry[0] < high]
