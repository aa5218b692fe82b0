"""Damaged data files: each flipped bit and each cut is found, before any reader is given wrong bytes."""

import hashlib
import itertools
import re
import tracemalloc
import zlib
from pathlib import Path

import msgspec
import pytest

from agola_core.datamanager.check.data_files import verify_file
from agola_core.datamanager.sstable.files.block import LONE_ZSTD, ZSTD, decode_block, encode_block
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.files.datafile import (
    END,
    MAGIC,
    TRAILER,
    FileRef,
    Footer,
    decode_footer,
    encode_filter,
    key_hashes,
    read_footer,
    write_files,
)
from agola_core.datamanager.sstable.files.entries import entry_key, split_key
from agola_core.datamanager.sstable.manifest import Run
from agola_core.datamanager.sstable.table import Table, scan_run
from agola_core.datamanager.types import Options
from agola_core.encoding.compression import compress
from agola_core.errors import CorruptionError
from agola_core.objectstorage.posix.storage import PosixStorage

ENTRIES = [
    (entry_key("note", "a"), b"alpha" * 12),
    (entry_key("note", "b"), b""),
    (entry_key("note", "c\0d"), None),
    (entry_key("other", "large"), b"0123456789" * 20),
    (entry_key("other", "z"), bytes(range(60))),
]


@pytest.fixture
def storage(tmp_path):
    return PosixStorage(tmp_path)


@pytest.fixture
def ref(storage):
    names = map("{:032x}".format, itertools.count(1)).__next__
    (ref,) = write_files(storage, iter(ENTRIES), Options(block_size=120), names, with_filter=True)
    return ref


def rewrite(storage, ref, data):
    """Change a file under its readers' feet, without the syncs of a proper write."""
    Path(storage.root, "data", ref.path).write_bytes(data)


def read_or_refuse(storage, ref, manifest):
    """Return how many entries could be read; those that could not raised, and none was wrong."""
    table = Table(storage, manifest, BlockCache(0))
    good, refused = 0, []
    for key, value in ENTRIES:
        data_type, object_id = key.decode().split("\0", 1)
        try:
            assert table.get(data_type, object_id) == value
            good += 1
        except CorruptionError as error:
            refused.append(error)
    assert all(error.path == ref.path and 0 <= error.offset <= ref.size for error in refused)
    return good


def test_an_intact_file_has_no_findings(storage, ref, manifest_of):
    assert list(verify_file(storage, ref)) == []
    assert read_or_refuse(storage, ref, manifest_of([[ref]])) == len(ENTRIES)


def test_every_flipped_bit_is_found_where_it_is_and_never_read(storage, ref, manifest_of):
    whole = storage.read(ref.path)
    trailer = ref.size - TRAILER.size
    starts = [0, *read_footer(storage.open_reader(ref.path), ref).offsets, ref.footer, trailer]
    for place, bit in itertools.product(range(len(whole)), range(8)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        rewrite(storage, ref, damaged)
        (finding,) = verify_file(storage, ref)
        assert finding.path == ref.path
        part = max(start for start in starts if start <= place)
        crc_of_the_footer = trailer + 12 <= place < trailer + 16  # cannot be told from damage to the footer
        assert finding.offset == (ref.footer if crc_of_the_footer else part), (place, bit)
        assert "digest" not in finding.message  # each part is covered by a check of its own
        read_or_refuse(storage, ref, manifest_of([[ref]]))
    rewrite(storage, ref, whole)
    assert list(verify_file(storage, ref)) == []


def test_every_cut_and_every_addition_is_found(storage, ref, manifest_of):
    whole = storage.read(ref.path)
    for length in range(len(whole)):
        rewrite(storage, ref, whole[:length])
        assert [finding.path for finding in verify_file(storage, ref)] == [ref.path], length
        assert read_or_refuse(storage, ref, manifest_of([[ref]])) == 0
    rewrite(storage, ref, whole + b"\0")
    assert [finding.path for finding in verify_file(storage, ref)] == [ref.path]


def test_a_missing_file_is_found_and_named(storage, ref, manifest_of):
    storage.delete(ref.path)
    assert [finding.message for finding in verify_file(storage, ref)] == ["the data file is missing"]
    with pytest.raises(CorruptionError, match=ref.path):
        Table(storage, manifest_of([[ref]]), BlockCache()).get("note", "a")


def test_damage_in_two_blocks_is_found_twice(storage, ref):
    damaged = bytearray(storage.read(ref.path))
    damaged[20] ^= 1
    damaged[ref.footer - 1] ^= 1
    rewrite(storage, ref, damaged)
    assert len(list(verify_file(storage, ref))) == 2


def test_a_scan_stops_at_damage_and_gives_only_what_is_right(storage, ref):
    damaged = bytearray(storage.read(ref.path))
    damaged[ref.footer - 1] ^= 1
    rewrite(storage, ref, damaged)
    scan = scan_run(storage, BlockCache(), Run((ref,)))
    assert list(itertools.islice(scan, 4)) == ENTRIES[:4]
    with pytest.raises(CorruptionError, match="the checksum of a block does not match"):
        next(scan)


def forge(storage, blocks, *, hashed=None, last_keys=None):
    """Write a file whose checksums are right, whatever is in it, and return its reference."""
    footer = Footer([], [], [], [], b"", encode_filter(key_hashes(hashed)) if hashed else b"")
    data, codings = MAGIC, b""
    for index, entries in enumerate(blocks):
        stored, coding = encode_block([key for key, _ in entries], [value for _, value in entries])
        footer.last_keys.append(last_keys[index] if last_keys else entries[-1][0])
        footer.offsets.append(len(data))
        footer.lengths.append(len(stored))
        footer.crcs.append(zlib.crc32(stored))
        codings += bytes([coding])
        data += stored
    at = len(data)
    tail = msgspec.msgpack.encode(msgspec.structs.replace(footer, codings=codings))
    data += tail + TRAILER.pack(at, len(tail), zlib.crc32(tail), END)
    every = [entry for entries in blocks for entry in entries]
    first, last = split_key(every[0][0]), split_key(footer.last_keys[-1])
    storage.write("data/forged.data", data)
    digest = hashlib.blake2b(data, digest_size=32).hexdigest()
    return FileRef("data/forged.data", len(data), digest, len(every), 0, first, last, at)


KEYS = [entry_key("note", name) for name in "abcd"]
A, B, C, D = [(key, b"") for key in KEYS]


@pytest.mark.parametrize(
    ("blocks", "more", "message"),
    [
        ([[A, B], [C, D]], {}, ""),
        ([[A, B], [C, D]], {"hashed": KEYS}, ""),
        ([[A, C], [B, D]], {}, "key b'note.*b' does not follow b'note.*c'"),
        ([[A, C, B, D]], {}, "does not follow"),
        ([[A, B], [B, D]], {}, "does not follow"),
        ([[A, A, D]], {}, "does not follow"),
        ([[A, B], [C, D]], {"hashed": [*KEYS[:3], entry_key("note", "x")]}, "the filter is not that of"),
        ([[A, B], [C, D]], {"last_keys": [KEYS[2], KEYS[3]]}, "its last key is not the one"),
        ([[A, (b"note\0\xff", b"")], [(b"note\0\xff\xff", b"")]], {"last_keys": [b"x", KEYS[3]]}, "is not UTF-8"),
    ],
)
def test_entries_that_do_not_fit_their_indexes_are_found_even_with_right_checksums(storage, blocks, more, message):
    ref = forge(storage, blocks, **more)
    findings = list(verify_file(storage, ref))
    if not message:
        assert findings == []
        return
    assert re.search(message, findings[0].message)
    assert findings[0].path == ref.path


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("entries", 6),
        ("tombstones", 0),
        ("digest", "0" * 64),
        ("first", ("note", "b")),
        ("last", ("note", "b")),
        ("footer", 14),
        ("size", 15),
    ],
)
def test_a_file_that_is_not_the_one_the_manifest_names_is_found(storage, ref, field, value):
    other = msgspec.structs.replace(ref, **{field: value})
    assert [finding.path for finding in verify_file(storage, other)] == [ref.path]


@pytest.mark.parametrize(
    "change",
    [
        {"last_keys": []},
        {"last_keys": [b"x"]},
        {"offsets": [13]},
        {"offsets": [0, 0, 0]},
        {"lengths": [1, 2, -3]},
        {"lengths": []},
        {"crcs": [0]},
        {"codings": b""},
        {"filter": b"1234567"},
        {"filter": b"12345678"},
    ],
)
def test_a_footer_that_does_not_fit_is_corrupt_even_with_a_right_checksum(storage, ref, change):
    footer = decode_footer(storage.read(ref.path, ref.footer), ref)
    data = msgspec.msgpack.encode(msgspec.structs.replace(footer, **change))
    forged = msgspec.structs.replace(ref, size=ref.footer + len(data) + TRAILER.size)
    with pytest.raises(CorruptionError, match="does not fit"):
        decode_footer(data + TRAILER.pack(ref.footer, len(data), zlib.crc32(data), END), forged)


def test_something_else_than_a_footer_is_corrupt(ref):
    data = msgspec.msgpack.encode({"not": "a footer"})
    forged = msgspec.structs.replace(ref, size=ref.footer + len(data) + TRAILER.size)
    with pytest.raises(CorruptionError, match="not a footer"):
        decode_footer(data + TRAILER.pack(ref.footer, len(data), zlib.crc32(data), END), forged)


@pytest.mark.parametrize(
    ("raw", "coding"),
    [
        (b"", 0),
        (b"\0\0\0\0", 0),
        (b"\1\0\0", 0),
        (b"\1\0\0\0\1\0\0\0\1\0\0\0\0a", 0),
        (b"\xff\xff\xff\xff" + b"\0" * 60, 0),
        (b"not zstd", ZSTD),
        (compress(b"") * 2, ZSTD),
    ],
)
def test_something_else_than_a_block_is_corrupt_even_with_a_right_checksum(raw, coding):
    with pytest.raises(CorruptionError, match="p at offset 7: a block cannot be decoded"):
        decode_block(raw, coding, zlib.crc32(raw), b"k", "p", 7)


@pytest.mark.parametrize("coding", [ZSTD, LONE_ZSTD])
def test_a_bomb_with_right_checksums_is_refused_before_it_is_in_memory(coding):
    bomb = compress(bytes(1 << 28), 1)
    assert len(bomb) < 10_000
    tracemalloc.start()
    try:
        with pytest.raises(CorruptionError, match="p at offset 7: a block cannot be decoded: more than 10000 bytes"):
            decode_block(bomb, coding, zlib.crc32(bomb), b"k", "p", 7, limit=10_000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("values", [[b""], [b"x" * 99], [b"x" * 5000], [b"x" * 40] * 7, [None, b"x" * 100, None]])
def test_no_block_of_a_file_is_larger_than_its_manifest_tells(storage, values):
    """The bound that readers take from a manifest holds for what is written, to the byte."""
    entries = [(entry_key("note", f"{number}"), value) for number, value in enumerate(values)]
    (ref,) = write_files(storage, iter(entries), Options(block_size=2000), lambda: "00" * 16, with_filter=False)
    assert not list(verify_file(storage, ref))
    if values == [b"x" * 99]:
        (finding,) = verify_file(storage, msgspec.structs.replace(ref, raw=ref.raw - 1))
        assert "more than" in finding.message
