"""Made the stores and exports of `v1/`, and the store of `v2/`, once: `python tests/data/formats/make.py DIRECTORY`.

They are what a release wrote, so they are never made anew. A new version of a format gets a directory of its own
beside this one, made by the release that brings it. `expected.json` has what the files hold.

`v2` has what is new in it: the store, whose manifests name runs by lists. Its exports and its service are those of
version 1, and were left out.

The coordinator of SQLite version 1 has the rows of the other one in the tables that version 1 had.
"""

import base64
import gzip
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import socket
import sys
import tarfile
import tempfile
from pathlib import Path

import apsw
import msgspec

import agola_core
from agola_core import Delete, Options, Put
from agola_core.datamanager import Compression, ExportFormat
from agola_core.datamanager.sstable.manifest import decode_manifest
from agola_core.runservice.archive import transfer
from agola_core.runservice.archive.projection import DATA_TYPES
from agola_core.runservice.archive.transfer import Include
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.standalone import Standalone, open_store

TYPES = ["note", "other", "tag"]
OPTIONS = Options(background=False, inline_limit=2048, block_size=512, file_size=512, retain_wals=4, instance="maker")
RANDOM = random.Random(1)

SQLITE_1 = """
CREATE TABLE old.entry (number INTEGER PRIMARY KEY, key TEXT NOT NULL, created INTEGER NOT NULL,
    version INTEGER NOT NULL, lease INTEGER NOT NULL, value BLOB);
INSERT INTO old.entry SELECT number, key, created, version, lease, value FROM main.entry;
CREATE UNIQUE INDEX old.entry_key ON entry (key, number);
CREATE INDEX old.entry_lease ON entry (lease) WHERE lease != 0;
CREATE TABLE old.lease (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl REAL NOT NULL, deadline REAL NOT NULL,
    boot TEXT NOT NULL);
INSERT INTO old.lease SELECT id, ttl, deadline, boot FROM main.lease;
CREATE TABLE old.compaction (revision INTEGER NOT NULL);
INSERT INTO old.compaction SELECT revision FROM main.compaction;
PRAGMA old.user_version = 1;
"""


def main(target: Path) -> None:
    target.mkdir(parents=True)
    socket.gethostname = lambda: "maker"
    work = Path(tempfile.mkdtemp())
    try:
        for make, name in ((_make_store, "store"), (_make_service, "service")):
            process = multiprocessing.get_context("fork").Process(target=make, args=(work / name, target))
            process.start()  # it ends as a crash does, and leaves what was not in storage yet
            process.join()
            assert process.exitcode == 0, process.exitcode
            _merge_log(work / name / "coordinator.db")
            _pack(work / name, target / f"{name}.tar.gz")
        _make_sqlite_1(work / "store" / "coordinator.db", work / "old.db", target / "coordinator-1.db.gz")
    finally:
        shutil.rmtree(work)
    parts = {path.stem: json.loads(path.read_text()) for path in sorted(target.glob("*.json"))}
    for name in parts:
        (target / f"{name}.json").unlink()
    (target / "expected.json").write_text(json.dumps(parts, indent=1, ensure_ascii=False) + "\n")


def contents(dm, types=TYPES) -> dict[str, dict[str, str]]:
    """Return a store's objects: short ones in base64, the digests of others."""
    return {
        data_type: {object_id: _shown(data) for object_id, data in dm.list_objects(data_type)} for data_type in types
    }


def _shown(data: bytes) -> str:
    return base64.b64encode(data).decode() if len(data) < 64 else hashlib.blake2b(data, digest_size=16).hexdigest()


def _make_store(directory: Path, target: Path) -> None:
    dm = agola_core.open(directory, data_types=TYPES, options=OPTIONS)
    for round_, step in enumerate((1, 25, 30)):
        numbers = range(round_, 100, step)
        dm.write_wal([Put("note", f"n{number:03}", RANDOM.randbytes(90)) for number in numbers])
        dm.write_wal([Put("tag", f"Grüße/ключ/🙂 {round_}", "<&>\u2028".encode()), Delete("note", f"n{round_ + 5:03}")])
        if round_ == 0:
            dm.write_wal([Put("other", "large", RANDOM.randbytes(5000)), Put("other", "empty", b"")])
        padding = f"padding-{round_}"  # makes each run larger than the later ones, so that it stays one
        dm.write_wal([Put("other", padding, bytes((400_000, 120_000, 0)[round_]))])
        assert dm.checkpoint(force=True)
    dm.write_wal([Delete("other", f"padding-{round_}") for round_ in range(2)])
    token = dm.change_groups_token(["counter-x", "ключ"])
    dm.write_wal([Put("tag", "grouped", b"1")], token)
    dm.write_wal([Put("tag", "once", b"1"), Delete("tag", "Grüße/ключ/🙂 0")], wal_id="an id of the writer's")
    dm.write_wal([Put("other", "large-after", RANDOM.randbytes(3000))])
    dm.sync()
    stored = contents(dm)
    for name, form, compression in (
        ("store.export", ExportFormat.NATIVE, Compression.NONE),
        ("store.export.gz", ExportFormat.NATIVE, Compression.GZIP),
        ("store.export.zst", ExportFormat.NATIVE, Compression.ZSTD),
        ("store.agola", ExportFormat.AGOLA, Compression.NONE),
    ):
        with (target / name).open("wb") as file:
            dm.export(file, form, compression=compression)
    synced = str(dm.sequence)
    dm.write_wal([Put("note", "unsynced", b"yes"), Delete("note", "n095"), Delete("tag", "Grüße/ключ/🙂 1")])
    dm.write_wal([Put("other", "large-unsynced", RANDOM.randbytes(2500))], wal_id="not in storage")
    newest = max(directory.rglob("manifests/*.json"))
    manifest = decode_manifest(newest.read_bytes(), newest.name)
    assert len(manifest.runs) == 3, "no tiers"
    assert min(run.depth for run in manifest.runs) == 0, "no run that the manifest names itself"
    assert max(run.depth for run in manifest.runs) > 1, "no lists of lists"
    assert any(run.tombstones for run in manifest.runs), "no tombstones"
    (target / "store.json").write_text(
        json.dumps({"sequence": str(dm.sequence), "whole": contents(dm), "synced": synced, "stored": stored})
    )
    os._exit(0)


def _make_service(directory: Path, target: Path) -> None:
    save = {"type": "save_to_workspace", "contents": [{"source_dir": "out", "dest_dir": "d", "paths": ["**"]}]}
    steps = [{"type": "run", "command": "echo héllo; mkdir out; echo data > out/f"}, save]
    restore = [{"type": "restore_workspace", "dest_dir": "."}, {"type": "run", "command": "cat d/f"}]
    tasks = {
        "t1": {"id": "t1", "name": "build", "steps": steps},
        "t2": {"id": "t2", "name": "test", "level": 1, "depends": {"t1": {"task_id": "t1"}}, "steps": restore},
    }
    request = msgspec.convert(
        {"run_config_tasks": tasks, "name": "made", "group": "/project/p/branch/main", "cache_group": "p"},
        RunCreateRequest,
    )
    with Standalone(directory) as alone:
        service = alone.service
        run = service.create_run(request).run
        assert service.wait_archived([run.id], 60)
        run = service.find_run(run.id)
        logs = {name: b"".join(service.open_log(run.id, name, step)).decode() for name, step in (("t1", 0), ("t2", 1))}
    shutil.rmtree(directory / "executor")
    for path in (*directory.glob("readdb.db*"), *directory.glob("lock")):
        path.unlink()
    with open_store(directory, background=False) as dm:
        dm.checkpoint(force=True)
        with (target / "service.export.zst").open("wb") as file:
            transfer.export(dm, file, compression=Compression.ZSTD, include=Include)
        with (target / "service.agola").open("wb") as file:
            transfer.export(dm, file, ExportFormat.AGOLA)
        expected = {"run": run.id, "result": run.result, "logs": logs, "contents": contents(dm, DATA_TYPES)}
        expected["archives"] = sorted(info.path for info in dm.storage.list("workspacearchives/"))
    (target / "service.json").write_text(json.dumps(expected))
    os._exit(0)


def _merge_log(database: Path) -> None:
    connection = apsw.Connection(str(database))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _make_sqlite_1(database: Path, old: Path, target: Path) -> None:
    connection = apsw.Connection(str(database))
    connection.execute("ATTACH ? AS old", (str(old),))
    connection.execute(SQLITE_1)
    connection.close()
    target.write_bytes(gzip.compress(old.read_bytes(), mtime=0))


def _pack(directory: Path, target: Path) -> None:
    with tarfile.open(target, "w:gz") as archive:
        for path in sorted(directory.rglob("*")):
            info = archive.gettarinfo(path, str(path.relative_to(directory)))
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            if path.is_file():
                with path.open("rb") as file:
                    archive.addfile(info, file)
            else:
                archive.addfile(info)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
