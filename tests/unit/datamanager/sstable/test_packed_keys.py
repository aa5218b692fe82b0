"""Packed keys: they are found as in a list, and take a part of its memory."""

import sys
from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from agola_core.datamanager.sstable.files.packed_keys import PackedKeys

KEYS = st.binary(max_size=6) | st.binary(max_size=3).map(lambda end: b"object\0" + end)


@given(st.sets(KEYS, max_size=80), st.binary(max_size=4), st.lists(KEYS, max_size=20))
def test_keys_are_found_as_in_a_list(keys, prefix, others):
    ordered = sorted(prefix + key for key in keys)
    packed = PackedKeys(ordered)
    assert list(packed) == ordered
    assert packed[:] == ordered
    assert packed[-1:] == ordered[-1:]
    for key in [*ordered, *others, *(prefix + key for key in others), *(key + b"\0" for key in ordered), b"", prefix]:
        assert packed.find(key) == bisect_left(ordered, key), key


def test_an_index_takes_little_memory():
    keys = [b"object\0object-%09d" % number for number in range(0, 32_000, 16)]
    packed = PackedKeys(keys)
    parts = (packed._ends, packed._rests, packed._marks, *packed._marks)
    assert sum(map(sys.getsizeof, parts)) <= packed.size * 1.2
    assert packed.size <= (sys.getsizeof(keys) + sum(map(sys.getsizeof, keys))) / 3.5
