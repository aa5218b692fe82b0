"""Parts of an upload: all of one size but the last, and little more than one of them in memory."""

import tracemalloc

import pytest

from agola_core.objectstorage.s3.upload import _in_parts

MIB = 1 << 20


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("pieces", [[], [0], [5], [7, 7], [3, 0, 4, 7, 1], [64], [63, 2], [200, 1], [1] * 130])
def test_parts_are_what_the_pieces_are(pieces, size):
    data = [bytes([index % 251]) * length for index, length in enumerate(pieces)]
    parts = list(_in_parts(iter(data), size))
    assert b"".join(parts) == b"".join(data)
    assert all(len(part) == size for part in parts[:-1])
    assert all(0 < len(part) <= size for part in parts)
    assert list(_in_parts(b"".join(data), size)) == parts


def test_little_more_than_a_part_and_its_pieces_is_in_memory():
    pieces = (bytes(16 * 1024) for _ in range(6 * 64))
    tracemalloc.start()
    try:
        for part in _in_parts(pieces, MIB):
            assert len(part) == MIB
            del part
        assert tracemalloc.get_traced_memory()[1] <= 2 * MIB + 200_000
    finally:
        tracemalloc.stop()
