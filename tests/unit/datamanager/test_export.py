"""Exports and imports of a store: what the stream is, and each way in which it can be wrong."""

import base64
import gzip
import io
import json
import threading

import pytest

import agola_core
from agola_core import BadRequestError, Delete, FencedError, Options, Put
from agola_core.datamanager import Compression, ExportFormat
from agola_core.encoding.compression import compress

TYPES = ["note", "other"]
QUIET = Options(background=False, block_size=200, file_size=1000, max_wal_bytes=4 << 20)
WAYS = [(form, compression) for form in ExportFormat for compression in Compression]


@pytest.fixture
def open_store(tmp_path):
    opened = []

    def open_one(name="store", **options):
        dm = agola_core.open(tmp_path / name, data_types=TYPES, options=QUIET, **options)
        opened.append(dm)
        return dm

    yield open_one
    for dm in opened:
        dm.close()


def contents(dm):
    return {name: dict(dm.list_objects(name)) for name in TYPES}


def exported(dm, form=ExportFormat.NATIVE, compression=Compression.NONE):
    file = io.BytesIO()
    dm.export(file, form, compression=compression)
    return file.getvalue()


def fill(dm):
    dm.write_wal([Put("note", f"n{number:03}", b"x" * number) for number in range(30)])
    dm.checkpoint(force=True)
    dm.write_wal([Delete("note", "n003"), Put("note", "é/<b>&\u2028", b""), Put("other", "big", b"\xff" * 300_000)])


@pytest.mark.parametrize(("form", "compression"), WAYS)
def test_an_export_comes_back_and_goes_out_again_byte_for_byte(open_store, form, compression):
    one, two = open_store("one"), open_store("two")
    fill(one)
    two.write_wal([Put("note", "gone", b"")])
    stream = exported(one, form, compression)
    assert stream == exported(one, form, compression)
    assert stream == b"".join(one.export_stream(form, compression=compression))
    old, feed = two.change_groups_token(["g"]), two.watch()
    result = two.import_(io.BytesIO(stream))
    assert result.entries == {"note": 30, "other": 1}
    assert contents(two) == contents(one)
    assert exported(two, form, compression) == stream
    with pytest.raises(agola_core.ConflictError):
        two.write_wal([Put("note", "z", b"")], old)
    with pytest.raises(FencedError):
        feed.next(0)
    two.write_wal([Put("note", "z", b"")])
    assert exported(two, form, compression) != stream


def test_the_native_format_has_a_header_entries_and_a_footer(open_store):
    dm = open_store()
    fill(dm)
    lines = [json.loads(line) for line in exported(dm).splitlines()]
    assert lines[0] == {
        "agola_export": 1,
        "store": dm.status().store,
        "sequence": str(dm.sequence),
        "data_types": TYPES,
    }
    assert [line["id"] for line in lines[1:-1] if line["data_type"] == "note"][:2] == ["n000", "n001"]
    assert set(lines[1]) == {"id", "data_type"}  # no data: left out, as Go does
    assert lines[-1]["entries"] == {"note": 30, "other": 1}
    assert len(lines[-1]["digest"]) == 64


def test_agolas_format_is_what_go_writes(open_store):
    dm = open_store()
    dm.write_wal([Put("note", 'a"\\\b\f\n\x01<>&\u2028\x7f', b"<>"), Put("note", "é", b""), Put("other", "1", b"1")])
    assert exported(dm, ExportFormat.AGOLA) == (
        rb'{"id":"a\"\\\u0008\u000c\n\u0001\u003c\u003e\u0026\u2028'
        b"\x7f"
        rb'","data_type":"note","data":"PD4="}'
        + '{"id":"é","data_type":"note"}'.encode()
        + rb'{"id":"1","data_type":"other","data":"MQ=="}'
    )


def test_an_export_is_one_state_while_writers_go_on(open_store):
    """Two objects that every WAL sets alike are alike in every export, and what was acknowledged is in it."""
    dm = open_store()
    dm.write_wal([Put("note", "a", b"0"), Put("other", "a", b"0")])
    stop, acknowledged = threading.Event(), [0]

    def write():
        for number in range(1, 100_000):
            if stop.is_set():
                return
            data = str(number).encode()
            dm.write_wal([Put("note", "a", data), Put("other", "a", data)])
            acknowledged[0] = number
            if number % 50 == 0:
                dm.checkpoint(force=True)

    thread = threading.Thread(target=write)
    thread.start()
    reader = open_store()  # another process would see no more
    for _ in range(40):
        before = acknowledged[0]
        _, one, other, _ = (json.loads(line) for line in exported(reader).splitlines())
        assert one["data"] == other["data"]
        assert int(base64.b64decode(one["data"])) >= before
    stop.set()
    thread.join()


def test_progress_is_told(open_store):
    dm = open_store()
    fill(dm)
    reports = []
    file = io.BytesIO()
    dm.export(file, progress=reports.append)
    last = reports[-1]
    assert (last.work, last.ended, last.size) == ("export", True, len(file.getvalue()))
    assert last.total is not None
    assert last.remaining is not None
    file.seek(0)
    dm.import_(file, progress=reports.append)
    assert (reports[-1].work, reports[-1].done, reports[-1].size) == ("import", 31, len(file.getvalue()))


def entry(object_id, data_type="note", **more):
    return json.dumps({"id": object_id, "data_type": data_type, **more}, separators=(",", ":")).encode()


AGOLA_WRONG = {
    "empty": (b"", "entry 0: the stream is empty"),
    "white space": (b" \n\n ", "the stream is empty"),
    "empty gzip": (gzip.compress(b""), "the stream is empty|it begins with"),
    "cut entry": (entry("a") + entry("b")[:-1], "entry 2: .*cut short"),
    "reordered": (entry("b") + entry("a"), "entry 2: id 'a' does not sort after"),
    "duplicated": (entry("a") + entry("a"), "entry 2: id 'a' does not sort after"),
    "mixed": (entry("a") + entry("a", "other") + entry("b"), "entry 3: data type 'note' comes a second time"),
    "unknown type": (entry("a", "nope"), "entry 1: unknown data type 'nope'"),
    "no id": (b'{"data_type":"note"}', "entry 1: an id of 0 bytes"),
    "long id": (entry("x" * 1025), "entry 1: an id of 1025 bytes"),
    "not UTF-8": (entry("a") + b'{"id":"\xff","data_type":"note"}', "entry 2: not an entry"),
    "a surrogate": (b'{"id":"\\ud800","data_type":"note"}', "entry 1: "),
    "not base64": (entry("a", data="?"), "entry 1: not an entry"),
    "wrong type": (b'{"id":1,"data_type":"note"}', "entry 1: not an entry"),
    "no object": (b"[1]", "entry 1: not an entry: it begins with"),
    "a comma": (entry("a") + b"," + entry("b"), "entry 2: not an entry"),
    "deeply nested": (b'{"id":' + b"[" * 100_000, "entry 1: not an entry"),
    "very deeply nested": (b'{"id":' + b"[" * 3_000_000, "entry 1: not an entry"),
    "over-long": (b'{"id":"a","data_type":"note","data":"' + b"A" * 8_000_000 + b'"}', "entry 1: .* longer than"),
    "over-long and no entry": (b'{"id":"' + b"x" * 3_000_000, "entry 1: not an entry, or too long"),
}


@pytest.mark.parametrize("name", AGOLA_WRONG)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_a_wrong_agola_stream_ends_in_one_clear_error_and_changes_nothing(open_store, name, packed):
    dm = open_store()
    fill(dm)
    stream, reason = AGOLA_WRONG[name]
    refused(dm, gzip.compress(stream, mtime=0) if packed else stream, reason)


def refused(dm, stream, reason):
    before = contents(dm)
    for dry_run in (True, False):
        with pytest.raises(BadRequestError, match=rf"(?s)^import: .*{reason}.*; nothing was imported$") as caught:
            dm.import_(io.BytesIO(stream), dry_run=dry_run)
        assert str(caught.value).count("nothing was imported") == 1
        assert len(str(caught.value)) < 400
    assert contents(dm) == before


def native(*lines, digest=None, footer=None):
    """Return a native export with a right digest around any lines."""
    import hashlib

    header = b'{"agola_export":1,"store":"s","sequence":"0000000000001-0000000000001","data_types":["note","other"]}'
    body = b"".join(line + b"\n" for line in (header, *lines))
    counts = {}
    for line in lines:
        kind = json.loads(line).get("data_type") if line.startswith(b'{"id"') else None
        if kind:
            counts[kind] = counts.get(kind, 0) + 1
    found = digest or hashlib.blake2b(body, digest_size=32).hexdigest()
    default = json.dumps({"entries": counts, "sections": {}, "digest": found}, separators=(",", ":")).encode()
    return body + (footer or default) + b"\n"


NATIVE_WRONG = {
    "reordered": (native(entry("b"), entry("a")), "line 3: id 'a' does not sort after"),
    "mixed": (native(entry("a"), entry("a", "other"), entry("b")), "line 4: data type 'note' comes a second time"),
    "no footer": (native(entry("a")).rsplit(b"\n", 2)[0] + b"\n", "line 2: .*footer is missing"),
    "cut line": (native(entry("a"))[:110], "line 2: .*cut short"),
    "cut footer": (native(entry("a"))[:-1], "line 3: the stream is cut short"),
    "header alone": (native().split(b"\n")[0] + b"\n", "line 1: .*footer is missing"),
    "cut header": (b'{"agola_export":1,', "line 1: the header is cut short"),
    "wrong header": (b'{"agola_export":"x"}\n', "line 1: the header is damaged"),
    "newer": (b'{"agola_export":2}\n', "line 1: format 2 is newer than 1"),
    "digest": (native(entry("a"), digest="0" * 64), "line 3: the digest does not match"),
    "counts": (
        native(entry("a"), footer=b'{"entries":{"note":2},"sections":{},"digest":""}'),
        "line 3: the footer counts",
    ),
    "footer": (native(entry("a"), footer=b'{"entries":[]}'), "line 3: the footer is damaged"),
    "after the footer": (native(entry("a")) + b"x", "line 3: something follows the footer"),
    "two streams": (native(entry("a")) + native(entry("b")), "something follows the footer"),
    "not UTF-8": (native(entry("a")).replace(b'"a"', b'"\xff"'), "line 2: not an entry"),
    "deeply nested": (native(entry("a")).replace(b'"a"', b"[" * 50_000), "line 2: not an entry"),
    "over-long": (native(entry("a", data="A" * 8_000_000)), "line 2: the line is longer than"),
    "long garbage": (native(entry("a")).replace(b'"a"', b"x" * 3_000_000), "line 2: not an entry, and too long"),
    "long garbage in data": (
        native(entry("a", data="A" * 3_000_000)).replace(b"AA" + b'"}', b"??" + b'"}'),
        "line 2: the data of a long entry is not base64",
    ),
    "a section": (native(b'{"section":"logs","id":"a","data":""}'), "line 2: unknown section 'logs'"),
    "an entry after sections": (native(b'{"section":1}', entry("a")), "line 2: neither an entry, nor"),
}


@pytest.mark.parametrize("name", NATIVE_WRONG)
def test_a_wrong_native_stream_ends_in_one_clear_error_and_changes_nothing(open_store, name):
    dm = open_store()
    fill(dm)
    refused(dm, *NATIVE_WRONG[name])


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_a_damaged_packed_stream_is_refused(open_store, compression):
    dm = open_store()
    fill(dm)
    stream = exported(dm, compression=compression)
    refused(dm, stream[:-1], "damaged|cut short")
    refused(dm, stream[: len(stream) // 2], "damaged|cut short")
    refused(dm, stream[:100] + bytes([stream[100] ^ 1]) + stream[101:], "")
    refused(dm, stream + b"\x01garbage", "damaged|follows")


def test_what_unpacks_to_very_much_is_refused_early(open_store):
    """Nothing grows with the stream: neither memory nor what is read of a line that is no entry."""
    dm = open_store()
    fill(dm)

    class Zeros(io.RawIOBase):
        read_bytes = 0

        def readable(self):
            return True

        def readinto(self, buffer):
            self.read_bytes += len(buffer)
            buffer[:] = b" " * len(buffer) if self.read_bytes == len(buffer) else b"{" * len(buffer)
            return len(buffer)

    endless = Zeros()
    with pytest.raises(BadRequestError, match="nothing was imported"):
        dm.import_(io.BufferedReader(endless))
    assert endless.read_bytes < 32 << 20
    bomb = b"".join(compress(b'{"id":"a","data_type":"note","data":"' + b"A" * (40 << 20)) for _ in range(2))
    assert len(bomb) < 20_000
    refused(dm, bomb, "entry 1: .*(longer than|not an entry)")


def test_a_refused_import_leaves_only_garbage(open_store):
    dm = open_store()
    fill(dm)
    before = {info.path for info in dm.storage.list()}
    refused(dm, native(entry("a", data="A" * 400_000), entry("A")), "does not sort")
    left = {info.path for info in dm.storage.list()} - before
    assert all(path.startswith("data/") for path in left)
    assert dm.verify() == []


def test_agolas_stream_may_have_white_space_and_other_order(open_store):
    dm = open_store()
    stream = b' {"data_type" : "note", "more": {"x": [1]}, "id": "a\\"}"}\n\n' + entry('b"}', data="QQ==") + b"\n"
    assert dm.import_(io.BytesIO(stream)).entries == {"note": 2}
    assert contents(dm)["note"] == {'a"}': b"", 'b"}': b"A"}


def test_white_space_without_end_is_refused_early(open_store):
    dm = open_store()
    bomb = compress(b"\n" * (512 << 20))
    assert len(bomb) < 32_000
    refused(dm, bomb, "bytes of white space before an entry")
