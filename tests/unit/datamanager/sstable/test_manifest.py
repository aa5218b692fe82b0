"""Manifests: numbered, immutable records of which data files are the store."""

from datetime import UTC, datetime
from itertools import product

import msgspec
import pytest

from agola_core.datamanager.format.checksummed import encode_checksummed
from agola_core.datamanager.sstable.files.datafile import FileRef
from agola_core.datamanager.sstable.manifest import (
    Manifest,
    Origin,
    Run,
    Totals,
    decode_manifest,
    encode_manifest,
    read_manifest,
    write_manifest,
)
from agola_core.errors import CorruptionError, FormatError
from agola_core.objectstorage.posix.storage import PosixStorage
from agola_core.sequence import Sequence

FILE = FileRef("data/1.data", 900, "ab" * 32, 10, 1, ("note", "ä\0"), ("other", "z"), 800, 4000)
MANIFEST = Manifest(
    number=7,
    epoch=2,
    lineage="0123456789abcdef",
    position=str(Sequence(2, 99)),
    created=datetime(2019, 7, 1, 12, tzinfo=UTC),
    data_types=("note", "other"),
    runs=(Run((FILE,)), Run((FILE, FILE))),
    origin=Origin.CHECKPOINT,
)
TOTALS = {"files": 0, "size": 0, "entries": 0, "tombstones": 0, "raw": 0}
PATH = "lineages/x/manifests/7.json"


def forged(**change):
    """Return a manifest with a right digest and other content."""
    record = msgspec.json.decode(msgspec.json.encode(MANIFEST)) | change
    body = msgspec.json.encode({name: value for name, value in record.items() if value is not None})
    return encode_checksummed(msgspec.Raw(body))


@pytest.mark.parametrize("origin", list(Origin))
def test_a_manifest_survives_its_bytes(origin):
    manifest = msgspec.structs.replace(MANIFEST, origin=origin)
    assert decode_manifest(encode_manifest(manifest), PATH) == manifest
    assert manifest.sequence == Sequence(2, 99)
    assert manifest.tops() == [FILE.path] * 3
    assert (manifest.data_files, manifest.size, manifest.format) == (3, 2700, 1)


def test_a_manifest_with_a_run_in_lists_is_of_format_2_and_any_other_as_it_was():
    listed = msgspec.structs.replace(MANIFEST, runs=(Run((FILE,)), Run((FILE,), 1, Totals(40, 9, 8, 7, 6))))
    again = decode_manifest(encode_manifest(listed), PATH)
    assert again == msgspec.structs.replace(listed, format=2)
    assert (again.data_files, again.size, again.runs[1].size) == (41, 909, 6)
    assert encode_manifest(msgspec.structs.replace(again, runs=MANIFEST.runs)) == encode_manifest(MANIFEST)
    assert b"depth" not in encode_manifest(MANIFEST)


def test_a_manifest_is_json_that_people_can_read():
    body, digest = encode_manifest(MANIFEST).splitlines()
    record = msgspec.json.decode(body)
    assert record["sequence"] == str(Sequence(2, 99))
    assert record["runs"][0]["files"][0]["path"] == "data/1.data"
    assert len(digest) == 64


def test_every_flipped_bit_is_found():
    whole = encode_manifest(MANIFEST)
    for place, bit in product(range(len(whole)), range(8)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        with pytest.raises(CorruptionError, match=PATH):
            decode_manifest(bytes(damaged), PATH)


def test_every_cut_and_every_addition_is_found():
    whole = encode_manifest(MANIFEST)
    for damaged in [whole[:length] for length in range(len(whole))] + [whole + b"\n", whole + whole, b"\n" + whole]:
        with pytest.raises(CorruptionError, match=PATH):
            decode_manifest(damaged, PATH)


@pytest.mark.parametrize("version", [0, 3, 1000, -1])
def test_another_format_is_refused_as_such(version):
    with pytest.raises(FormatError, match=rf"^{PATH}:? .*format {version}\b"):
        decode_manifest(forged(format=version, runs="in another shape"), PATH)


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": "x"},
        {"sequence": None},
        {"number": "7"},
        {"runs": [{"files": [{"path": "data/1.data"}]}]},
        {"runs": [{"files": [], "depth": 1}]},
        {"runs": [{"files": [], "depth": 17, "totals": TOTALS}]},
        {"runs": [{"files": [], "depth": -1, "totals": TOTALS}]},
        {"runs": [{"files": [], "totals": TOTALS}]},
        {"origin": "elsewhere"},
        {"created": "yesterday"},
        {"format": "one"},
    ],
)
def test_a_record_that_is_no_manifest_is_corrupt_even_with_a_right_digest(change):
    with pytest.raises(CorruptionError, match=PATH):
        decode_manifest(forged(**change), PATH)


def test_a_run_weighs_what_it_has_before_compression_as_a_delta_in_memory_does():
    assert Run((FILE, FILE)).size == 8000
    assert Run((msgspec.structs.replace(FILE, raw=0),)).size == 900


def test_a_manifest_is_stored_and_a_missing_one_is_corruption(tmp_path):
    storage = PosixStorage(tmp_path)
    with pytest.raises(CorruptionError, match=f"{PATH} at offset 0: the manifest is missing"):
        read_manifest(storage, PATH)
    write_manifest(storage, PATH, MANIFEST)
    assert read_manifest(storage, PATH) == MANIFEST
