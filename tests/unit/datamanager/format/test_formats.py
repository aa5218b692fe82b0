"""Stores and exports that earlier releases wrote open with this one; those of later releases are refused.

`tests/data/formats/make.py` says how they were made.
"""

import base64
import gzip
import hashlib
import io
import json
import re
import struct
import tarfile
import zlib
from pathlib import Path

import apsw
import msgspec
import pytest

import agola_core
from agola_core import BadRequestError, Delete, FormatError, Options, Put, maintenance
from agola_core.coordinator.port import PutOp
from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator
from agola_core.datamanager.format import keys
from agola_core.datamanager.format.batches import decode_batch
from agola_core.datamanager.format.records import decode_wal
from agola_core.datamanager.sstable.manifest import decode_manifest
from agola_core.db import Database
from agola_core.runservice.archive import transfer
from agola_core.runservice.archive.projection import DATA_TYPES
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.standalone import Standalone, open_store

FORMATS = Path(__file__).parents[3] / "data" / "formats"
VERSION_1 = FORMATS / "v1"
EXPECTED = json.loads((VERSION_1 / "expected.json").read_text())
TYPES = ["note", "other", "tag"]
QUIET = Options(background=False)
USE_LATER = "use .*later"


def unpacked(name, directory, version=VERSION_1):
    with tarfile.open(version / f"{name}.tar.gz") as archive:
        archive.extractall(directory, filter="data")
    return directory


@pytest.fixture
def store(tmp_path):
    return unpacked("store", tmp_path / "store")


@pytest.fixture(params=["SQLite 1", "SQLite 2"])
def any_store(request, store):
    if request.param == "SQLite 1":
        packed = (VERSION_1 / "coordinator-1.db.gz").read_bytes()
        (store / "coordinator.db").write_bytes(gzip.decompress(packed))
    return store


def shown(data):
    return base64.b64encode(data).decode() if len(data) < 64 else hashlib.blake2b(data, digest_size=16).hexdigest()


def contents(dm, types=TYPES):
    return {name: {object_id: shown(data) for object_id, data in dm.list_objects(name)} for name in types}


# What earlier releases wrote


LISTS = msgspec.structs.replace(QUIET, block_size=512)
"""So small that a run of more than two files is named by lists."""


def newest_manifest(store):
    path = max((store / "storage" / "data").rglob("manifests/*.json"), key=lambda path: path.name)
    return decode_manifest(path.read_bytes(), path.name)


def test_a_store_of_version_1_gets_lists_with_its_first_checkpoint_and_keeps_its_past(store):
    expected = EXPECTED["store"]
    assert newest_manifest(store).format == 1
    with agola_core.open(store, data_types=TYPES, options=LISTS) as dm:
        assert contents(dm) == expected["whole"]
        dm.write_wal([Put("note", "new", b"1")])
        dm.checkpoint(force=True)
        assert dm.verify() == []
        dm.collect_garbage()
    upgraded = newest_manifest(store)
    assert (upgraded.format, max(run.depth for run in upgraded.runs)) == (2, 1)
    with agola_core.open(store, data_types=TYPES, options=QUIET, at=expected["synced"]) as past:
        assert contents(past) == expected["stored"]  # from a manifest of format 1 beside the new one
    (store / "coordinator.db").unlink()
    with agola_core.open(store, data_types=TYPES, options=LISTS) as dm:
        whole = contents(dm)
        assert whole["note"].pop("new") == shown(b"1")
        assert whole == expected["whole"]


def test_a_store_of_version_2_opens_as_it_was_left_and_from_its_storage_alone(tmp_path):
    version = FORMATS / "v2"
    expected = json.loads((version / "expected.json").read_text())["store"]
    store = unpacked("store", tmp_path / "store", version)
    manifest = newest_manifest(store)
    assert (manifest.format, {run.depth for run in manifest.runs}) == (2, {0, 2})
    with agola_core.open(store, data_types=TYPES, options=QUIET, at=expected["synced"]) as past:
        assert contents(past) == expected["stored"]
    with agola_core.open(store, data_types=TYPES, options=QUIET) as dm:
        assert (str(dm.sequence), contents(dm)) == (expected["sequence"], expected["whole"])
        assert dm.verify() == []
    store = unpacked("store", tmp_path / "other", version)
    (store / "coordinator.db").unlink()
    with agola_core.open(store, data_types=TYPES, options=QUIET) as dm:
        assert contents(dm) == expected["stored"]
        dm.write_wal([Put("note", "new", b"1")])
        dm.compact()
        assert dm.verify() == []
    assert newest_manifest(store).format == 1  # one run of few files, with blocks of the usual size


def user_version(path):
    connection = apsw.Connection(str(path))
    try:
        return connection.execute("PRAGMA user_version").fetchone()[0]
    finally:
        connection.close()


def test_a_store_opens_as_it_was_left_and_goes_on(any_store):
    expected = EXPECTED["store"]
    with agola_core.open(any_store, data_types=TYPES, options=QUIET) as dm:
        assert str(dm.sequence) == expected["sequence"]
        assert contents(dm) == expected["whole"]
        assert dm.verify() == []
        actions = [Put("tag", "once", b"1"), Delete("tag", "Grüße/ключ/🙂 0")]
        dm.write_wal(actions, wal_id="an id of the writer's")  # its outcome was stored: it does nothing again
        assert str(dm.sequence) == expected["sequence"]
        dm.write_wal([Put("note", "new", b"1"), Put("other", "large-new", bytes(100_000))])
        dm.checkpoint(force=True)
        dm.collect_garbage()
        assert dm.verify() == []
        assert dm.read_object("note", "new")[0] == b"1"
    assert user_version(any_store / "coordinator.db") == 2
    with agola_core.open(any_store, data_types=TYPES, options=QUIET) as dm:
        whole = contents(dm)
        assert whole["note"].pop("new") == shown(b"1")
        assert whole["other"].pop("large-new") == shown(bytes(100_000))
        assert whole == expected["whole"]


def test_a_store_opens_from_its_storage_alone(store):
    (store / "coordinator.db").unlink()
    with agola_core.open(store, data_types=TYPES, options=QUIET) as dm:
        assert contents(dm) == EXPECTED["store"]["stored"]
        assert dm.verify() == []


def test_a_store_opens_as_it_stood_before(store):
    synced = EXPECTED["store"]["synced"]
    with agola_core.open(store, data_types=TYPES, options=QUIET, at=synced) as past:
        assert contents(past) == EXPECTED["store"]["stored"]


@pytest.mark.parametrize("name", ["store.export", "store.export.gz", "store.export.zst", "store.agola"])
def test_an_export_imports(name, tmp_path):
    with agola_core.open(tmp_path, data_types=TYPES, options=QUIET) as dm:
        with (VERSION_1 / name).open("rb") as file:
            dm.import_(file)
        assert contents(dm) == EXPECTED["store"]["stored"]
        assert dm.verify() == []


def check_service(directory, *, with_logs):
    expected = EXPECTED["service"]
    with Standalone(directory) as alone:
        service = alone.service
        run = service.find_run(expected["run"])
        assert (run.name, run.result, run.archived) == ("made", expected["result"], True)
        assert [task.name for task in service.run_config(run.id).tasks.values()] == ["build", "test"]
        if with_logs:
            for (name, log), step in zip(expected["logs"].items(), (0, 1), strict=True):
                assert b"".join(service.open_log(run.id, name, step)).decode() == log
            found = [info.path for info in alone.datamanager.storage.list("workspacearchives/")]
            assert found == expected["archives"]
            (archive,) = (path for path in found if path.endswith(".tar"))
            with tarfile.open(fileobj=io.BytesIO(alone.datamanager.storage.read(archive))) as content:
                assert content.extractfile("d/f").read() == b"data\n"
        assert service.create_run(new_run()).run.id > run.id


def new_run():
    tasks = {"a": {"id": "a", "name": "a", "needs_approval": True}}
    return msgspec.convert({"run_config_tasks": tasks, "name": "n", "group": "/project/p"}, RunCreateRequest)


def test_a_run_service_opens_as_it_was_left(tmp_path):
    directory = unpacked("service", tmp_path / "data")
    with open_store(directory, background=False) as dm:
        assert contents(dm, DATA_TYPES) == EXPECTED["service"]["contents"]
        assert dm.verify() == []
    check_service(directory, with_logs=True)


@pytest.mark.parametrize("name", ["service.export.zst", "service.agola"])
def test_an_export_of_a_run_service_imports(name, tmp_path):
    with open_store(tmp_path / "data", background=False) as dm:
        maintenance.enable(dm.coordinator)
        with (VERSION_1 / name).open("rb") as file:
            transfer.import_(dm, file)
        maintenance.disable(dm.coordinator)
        assert dm.verify() == []
    check_service(tmp_path / "data", with_logs=name.endswith("zst"))


# What later releases may write: another version, and fields that this release cannot know


def resealed(path, change):
    fields = json.loads(path.read_bytes().split(b"\n")[0])
    line = json.dumps({**fields, **change}).encode()
    path.write_bytes(line + b"\n" + hashlib.blake2b(line, digest_size=32).hexdigest().encode() + b"\n")


@pytest.mark.parametrize("change", [{"format": 2}, {"format": 2, "store": {"id": 1}}])
def test_a_storage_of_a_later_format_is_refused(store, change):
    resealed(store / "storage" / "data" / "store.json", change)
    (store / "coordinator.db").unlink()
    with pytest.raises(FormatError, match=rf"store\.json.* format 2, newer than 1.*{USE_LATER}"):
        agola_core.open(store, data_types=TYPES, options=QUIET)


@pytest.mark.parametrize("change", [{"format": 3}, {"format": 3, "runs": 7}])
def test_a_manifest_of_a_later_format_is_refused(store, change):
    path = max((store / "storage" / "data").rglob("manifests/*.json"))
    resealed(path, change)
    with pytest.raises(FormatError, match=rf"format 3, newer than 2.*{USE_LATER}"):
        decode_manifest(path.read_bytes(), "manifest.json")
    with pytest.raises(FormatError, match=rf"{re.escape(path.name)}.*{USE_LATER}"):
        agola_core.open(store, data_types=TYPES, options=QUIET)


@pytest.mark.parametrize("fields", [{8: 3}, {8: 3, 6: ["other"]}, {8: 3, 0: "x", 7: 5}])
def test_a_wal_of_a_later_format_is_refused(store, fields):
    path = next((store / "storage" / "data").rglob("*.wals"))
    data = path.read_bytes()
    (length,) = struct.unpack_from("<I", data, 13)
    items = msgspec.msgpack.decode(data[21 : 17 + length])
    assert decode_wal(data[17 : 17 + length], "a.wals").format == items[8] == 1
    for place, value in fields.items():
        items[place] = value
    body = msgspec.msgpack.encode(items)
    with pytest.raises(FormatError, match=rf"a\.wals has format 3, newer than 2.*{USE_LATER}"):
        decode_wal(struct.pack("<I", zlib.crc32(body)) + body, "a.wals")


def test_a_batch_of_a_later_format_is_refused():
    with pytest.raises(FormatError, match=rf"a\.wals has format 12, newer than 1.*{USE_LATER}"):
        decode_batch(b"agola-wals-12\nwhatever follows", "a.wals")


@pytest.mark.parametrize("change", [{"format": 2}, {"format": 2, "epoch": "x"}])
def test_a_coordinator_of_a_later_format_is_refused(store, change):
    coordinator = SQLiteCoordinator(store / "coordinator.db")
    fields = json.loads(coordinator.get(keys.LINEAGE).value)
    coordinator.txn([], [PutOp(keys.LINEAGE, json.dumps({**fields, **change}).encode())])
    coordinator.close()
    with pytest.raises(FormatError, match=rf"dm/control/lineage.* format 2, newer than 1.*{USE_LATER}"):
        agola_core.open(store, data_types=TYPES, options=QUIET)


def test_a_database_of_a_later_version_is_refused(store):
    path = store / "coordinator.db"
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(FormatError, match=rf"coordinator\.db has format 3, newer than 2.*{USE_LATER}"):
        agola_core.open(store, data_types=TYPES, options=QUIET)
    with pytest.raises(FormatError, match=rf"coordinator\.db has format 3, newer than 1.*{USE_LATER}"):
        Database(path, ["CREATE TABLE a (b)"])


def test_an_export_of_a_later_format_is_refused(tmp_path):
    data = (VERSION_1 / "store.export").read_bytes().replace(b'{"agola_export":1', b'{"agola_export":2', 1)
    with (
        agola_core.open(tmp_path, data_types=TYPES, options=QUIET) as dm,
        pytest.raises(BadRequestError, match=rf"line 1: format 2 is newer than 1.*{USE_LATER}.*nothing was imported"),
    ):
        dm.import_(io.BytesIO(data))
