"""A reader that was written from docs/storage-format.md alone reads what the library writes.

It shares no code with the library: its own MessagePack, its own checks. Where it and the document disagree with the
library, one of the three is wrong.
"""

import hashlib
import json
import random
import struct
import zlib

import pytest

import agola_core
from agola_core import Delete, Options, Put
from agola_core.encoding.compression import decompress  # zstd itself is not ours to write again
from agola_core.events import Event, EventStore, StreamEvents

SIZES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4}
"""Bytes of the length, or of the number itself, that follow a MessagePack type byte."""

DIGITS = "0123456789abcdefghijklmnopqrstuv"

EVENT_TYPES = [f"agola.event{index}" for index in ("", "-head", "-stream", "-type", "-tag", "-id")]


class MiniReader:
    """Reads the directory of a posix storage."""

    def __init__(self, root):
        self.root = root / "data"
        self.lists = 0

    def names(self, pattern):
        return sorted(str(path.relative_to(self.root)) for path in self.root.glob(pattern))

    def bytes(self, path):
        return (self.root / path).read_bytes()

    def sealed(self, path):
        line, digest, end = self.bytes(path).split(b"\n")
        assert end == b""
        assert hashlib.blake2b(line, digest_size=32).hexdigest() == digest.decode()
        return json.loads(line)

    def read(self):
        """Return the store as {(data type, id): bytes}, and the sequence of its newest WAL."""
        store = self.sealed("store.json")
        assert store["format"] == 1
        marker_path = max(self.names("lineages/*/active.json"))
        lineage = marker_path.removesuffix("active.json")
        marker = self.sealed(marker_path)
        assert marker["store"] == store["store"]
        assert lineage == f"lineages/{base32(marker['epoch'])}-{marker['lineage']}/"
        manifest = self.newest_manifest(lineage)
        assert (manifest["epoch"], manifest["lineage"]) == (marker["epoch"], marker["lineage"])
        assert manifest["format"] == (2 if any("depth" in run for run in manifest["runs"]) else 1)
        state = {}
        for place, run in enumerate(reversed(manifest["runs"])):
            oldest = place == 0
            for key, value in self.run(run, oldest=oldest):
                if value is None:
                    assert not oldest
                    state.pop(key, None)
                else:
                    state[key] = value
        reached = manifest["sequence"]
        for sequence, actions in self.wals_after(lineage, manifest["sequence"]):
            reached = sequence
            for action in actions:
                if action[0] == "put":
                    state[action[1], action[2]] = action[3]
                else:
                    assert action[0] == "delete"
                    state.pop((action[1], action[2]), None)
        assert {data_type for data_type, _ in state} <= set(manifest["data_types"]) | {"note", "other", *EVENT_TYPES}
        return state, reached

    def newest_manifest(self, lineage):
        found = [self.sealed(path) for path in self.names(f"{lineage}manifests/*.json")]
        for path, manifest in zip(self.names(f"{lineage}manifests/*.json"), found, strict=True):
            assert int(path.rpartition("/")[2][:20]) == manifest["number"]
        return max(found, key=lambda manifest: (manifest["number"], manifest["sequence"]))

    def run(self, run, *, oldest):
        last = b""
        files = run["files"]
        for _ in range(run.get("depth", 0)):
            files = [named for file in files for named in self.list(file)]
        if "depth" in run:
            self.lists += 1
            sums = {name: sum(file[name] for file in files) for name in ("size", "entries", "tombstones", "raw")}
            assert run["totals"] == {"files": len(files), **sums}
        for file in files:
            for key, value in self.data_file(file, oldest=oldest):
                assert key > last
                last = key
                data_type, _, object_id = key.partition(b"\0")
                yield (data_type.decode(), object_id.decode()), value

    def list(self, file):
        for key, value in self.data_file(file, oldest=True):
            named = json.loads(value)
            assert key.decode() == "\0".join(named["last"])
            yield named

    def data_file(self, file, *, oldest):
        data = self.bytes(file["path"])
        assert len(data) == file["size"]
        assert hashlib.blake2b(data, digest_size=32).hexdigest() == file["digest"]
        assert data[:13] == b"agola-data-1\n"
        offset, length, crc, magic = struct.unpack("<QII8s", data[-24:])
        assert (offset, offset + length + 24, magic) == (file["footer"], len(data), b"agoladat")
        footer = data[offset : offset + length]
        assert zlib.crc32(footer) == crc
        last_keys, offsets, lengths, crcs, codings, hashes = unpack(footer)
        assert offsets[0] == 13
        assert [begin + size for begin, size in zip(offsets, lengths, strict=True)] == [*offsets[1:], offset]
        entries = []
        for index, begin in enumerate(offsets):
            stored = data[begin : begin + lengths[index]]
            assert zlib.crc32(stored) == crcs[index]
            block = decompress(stored, file["raw"] + 4) if codings[index] in {1, 3} else stored
            found = [(last_keys[index], block)] if codings[index] in {2, 3} else list(block_entries(block))
            assert found[-1][0] == last_keys[index]
            entries += found
        assert len(entries) == file["entries"]
        assert sum(value is None for _, value in entries) == file["tombstones"]
        assert entries[0][0].decode() == "\0".join(file["first"])
        assert entries[-1][0].decode() == "\0".join(file["last"])
        assert sum(len(key) + len(value or b"") + 9 for key, value in entries) >= file["raw"] > 0
        wanted = [int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") for key, _ in entries]
        assert [*struct.unpack(f"<{len(hashes) // 8}Q", hashes)] == ([] if oldest else sorted(wanted))
        return entries

    def wals_after(self, lineage, after):
        reached = after
        for path in self.names(f"{lineage}wals/*.wals"):
            name = path.rpartition("/")[2]
            records = list(self.batch(path))
            assert (sequence_of(records[0]), sequence_of(records[-1])) == (name[:27], name[28:55])
            for record in records:
                sequence = sequence_of(record)
                if sequence <= reached:
                    continue
                assert f"{base32(record[0])}-{base32(record[2])}" == reached
                reached = sequence
                actions = unpack(self.actions(record))
                yield sequence, list(with_events(actions, record[4], *record[10])) if record[8] == 2 else actions

    def batch(self, path):
        data = self.bytes(path)
        assert data[:13] == b"agola-wals-1\n"
        assert hashlib.blake2b(data[:-16], digest_size=16).digest() == data[-16:]
        position, count = 13, 0
        while True:
            (length,) = struct.unpack_from("<I", data, position)
            position += 4
            if length == 0:
                break
            frame = data[position : position + length]
            assert struct.unpack_from("<I", frame) == (zlib.crc32(frame[4:]),)
            yield unpack(frame[4:])
            position, count = position + length, count + 1
        assert struct.unpack_from("<I", data, position) == (count,)
        assert position + 4 + 16 == len(data)

    def actions(self, record):
        _, counter, previous, _, _, groups, actions, payload, version, given, *placed = record
        assert (previous, version) == (counter - 1, 2 if placed else 1)
        assert isinstance(given, bool)
        assert isinstance(groups, list)
        if payload is None:
            return actions
        path, size, digest = payload
        data = self.bytes(path)
        assert (actions, len(data)) == (b"", size)
        assert hashlib.blake2b(data, digest_size=16).hexdigest() == digest
        return data


def with_events(actions, time, position, *versions):
    """Yield a WAL's actions with its batches in their places, and the entries of the indexes."""
    versions = list(versions)
    for action in actions:
        if action[1] != "agola.event":
            yield action
            continue
        version = versions.pop(0)
        last = position + int(action[2]) - 1
        yield ["put", "agola.event", f"{last:016}", struct.pack("<QQQ", position, version, time) + action[3]]
        stream, events = unpack(action[3])
        if stream:
            yield ["put", "agola.event-head", stream, b"%d" % (version + len(events) - 1)]
            yield ["put", "agola.event-stream", f"{stream}\0{version + len(events) - 1:016}", b"%d" % last]
        for event_type, _, tags, _, event_id in events:
            yield ["put", "agola.event-type", f"{event_type}\0{position:016}", b"%d" % last]
            for tag in tags:
                yield ["put", "agola.event-tag", f"{tag}\0{position:016}", b"%d %s" % (last, event_type.encode())]
            if event_id:
                yield ["put", "agola.event-id", event_id, b"%d %d" % (position, last)]
            position += 1
    assert not versions


def block_entries(block):
    (count,) = struct.unpack_from("<I", block)
    key_ends = struct.unpack_from(f"<{count}I", block, 4)
    value_ends = struct.unpack_from(f"<{count}I", block, 4 + 4 * count)
    tombstones = block[4 + 8 * count : 4 + 9 * count]
    keys = block[4 + 9 * count :]
    values = keys[key_ends[-1] :]
    assert len(values) == value_ends[-1]
    for index in range(count):
        key = keys[key_ends[index - 1] if index else 0 : key_ends[index]]
        value = values[value_ends[index - 1] if index else 0 : value_ends[index]]
        assert tombstones[index] in {0, 1}
        assert not (tombstones[index] and value)
        yield key, None if tombstones[index] else value


def base32(number):
    return "".join(DIGITS[number >> 5 * place & 31] for place in range(12, -1, -1))


def sequence_of(record):
    return f"{base32(record[0])}-{base32(record[1])}"


def unpack(data):
    """Decode one MessagePack value: of it only what the document uses."""
    value, end = _unpack(data, 0)
    assert end == len(data)
    return value


def _unpack(data, at):
    kind = data[at]
    at += 1
    if kind < 0x80:
        return kind, at
    if kind == 0x80:
        return {}, at
    if 0x90 <= kind < 0xA0:
        return _unpack_array(data, at, kind & 15)
    if 0xA0 <= kind < 0xC0:
        return data[at : at + (kind & 31)].decode(), at + (kind & 31)
    if kind == 0xC0:
        return None, at
    if kind in {0xC2, 0xC3}:
        return kind == 0xC3, at
    size = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4}[
        kind
    ]
    number, at = int.from_bytes(data[at : at + size], "big"), at + size
    if kind <= 0xC6:
        return data[at : at + number], at + number
    if kind <= 0xCF:
        return number, at
    if kind <= 0xDB:
        return data[at : at + number].decode(), at + number
    return _unpack_array(data, at, number)


def _unpack_array(data, at, count):
    items = []
    for _ in range(count):
        item, at = _unpack(data, at)
        items.append(item)
    return items, at


def append(dm, generator, step):
    """Append some events, a part of them large enough to go to storage first."""
    events = [
        Event(f"T{number}", generator.randbytes(step), tags=[f"t{step % 3}", "x"][: number % 3], id=f"{step}-{number}")
        for number in range(generator.randrange(1, 9))
    ]
    streams = generator.sample(["", "s", "ü"], 2)
    EventStore(dm).append_all(
        [StreamEvents(events, streams[0] or None), StreamEvents([Event("T")], streams[1] or None)]
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_reader_written_from_the_document_reads_the_same(tmp_path, seed):
    generator = random.Random(seed)
    options = Options(background=False, inline_limit=500, block_size=300, file_size=1500, retain_wals=2)
    with agola_core.open(tmp_path, data_types=["note", "other"], options=options) as dm:
        ids = [f"id-{number}" for number in range(60)] + ["ü", "a\0b", "z" * 300]
        for step in range(40):
            actions = []
            for _ in range(generator.randrange(1, 12)):
                data_type, object_id = generator.choice(["note", "other"]), generator.choice(ids)
                size = generator.choice([0, 1, 40, 200, 400])
                data = generator.randbytes(size) if generator.random() < 0.5 else b"x" * size
                actions.append(
                    Delete(data_type, object_id) if generator.random() < 0.2 else Put(data_type, object_id, data)
                )
            dm.write_wal(actions, dm.change_groups_token(["g"]) if step % 3 == 0 else None)
            append(dm, generator, step)
            if generator.random() < 0.2:
                dm.checkpoint(force=True)
        dm.sync()
        kept = ["note", "other", *EVENT_TYPES]
        expected = {(name, key): value for name in kept for key, value in dm.list_objects(name)}
        reader = MiniReader(tmp_path / "storage")
        assert reader.read() == (expected, str(dm.sequence))
        assert reader.lists
        newest = dm.sequence
    for file in tmp_path.glob("coordinator.db*"):
        file.unlink()
    with agola_core.open(tmp_path, data_types=["note", "other"], options=options) as dm:
        assert dm.sequence.epoch == newest.epoch + 1
        dm.write_wal([Put("note", "after", b"1")])
        dm.sync()
        expected["note", "after"] = b"1"
        assert MiniReader(tmp_path / "storage").read() == (expected, str(dm.sequence))
