"""R8 and R10: every parser is given what it was not made for. Only this package's own errors come out, and soon.

Inputs are made from whole ones by random damage. Where a checksum would stop every damaged input at the door, damage
is also done behind it and the checksum made anew.
"""

from __future__ import annotations

import atexit
import contextlib
import gzip
import io
import os
import random
import shutil
import struct
import tarfile
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec

import agola_core
from agola_cli.main import SettingsFile, cli
from agola_core import ChangeGroupsToken, Options, Put, Sequence
from agola_core.coordinator.etcd.settings import parse_url
from agola_core.datamanager.format import events
from agola_core.datamanager.format.batches import decode_batch, encode_batch
from agola_core.datamanager.format.records import WalRecord, decode_actions, decode_wal, encode_actions, encode_wal
from agola_core.datamanager.sstable.file_lists import decode_entry
from agola_core.datamanager.sstable.files.datafile import FileRef
from agola_core.datamanager.sstable.manifest import Manifest, Origin, Run, decode_manifest, encode_manifest
from agola_core.encoding.compression import compress
from agola_core.errors import AgolaError
from agola_core.executor.archives.globs import compile_globs
from agola_core.executor.archives.unpack import unpack
from agola_core.executor.cache_keys import expand_key
from agola_core.objectstorage.posix.storage import PosixFlatStorage, PosixStorage
from agola_core.objectstorage.s3.url import parse_s3_url
from agola_core.runconfig import parse_config
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import ExecutorTask
from agola_core.tar_stream import Limits
from agola_http.routes.runs import parse_query
from agola_http.server.endpoints import Call
from agola_http.server.request_json import decode as decode_json
from tests.soak.processes.kill import MEMORY
from tests.soak.trial import Campaign, Violation

_LONG_PATH = "aa/" * 30 + "x"
EXECUTIONS = 300
MAX_SECONDS = 1.0
"""Of processor time for one input."""

_SPECIAL = (
    b"\x00",
    b"\xff" * 4,
    b"\xff" * 8,
    b"../",
    b"{{",
    b"\xc3\x28",
    b"1e999",
    b"[" * 200,
    b"&a *a",
    b"-1",
    b"\n",
    b"\r\n",
)

Damage = Callable[[random.Random, bytes], bytes]


class Target(NamedTuple):
    """A parser.

    Attributes:
        name: What is counted.
        whole: Inputs that it takes.
        parse: Given an input.
        seal: Makes an input from damaged insides; identity where there is no checksum.
    """

    name: str
    whole: tuple[bytes, ...]
    parse: Callable[[bytes], object]
    encode_checksummed: Callable[[bytes], bytes] = bytes


def damage(rng: random.Random, data: bytes) -> bytes:
    """Return an input that was damaged at some places."""
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 8])):
        place = rng.randrange(len(damaged) + 1)
        match rng.randrange(6):
            case 0 if damaged:
                damaged[place % len(damaged)] ^= 1 << rng.randrange(8)
            case 1:
                damaged[place:place] = rng.choice(_SPECIAL)
            case 2:
                del damaged[place : place + rng.randrange(1, 20)]
            case 3:
                damaged[place : place + 4] = rng.choice(_SPECIAL)
            case 4:
                end = rng.randrange(len(damaged) + 1)
                damaged[place:place] = damaged[min(place, end) : max(place, end)]
            case _:
                del damaged[place:]
    return bytes(damaged[: 1 << 20])


def trial(seed: int) -> Counter[str]:
    """Damage inputs of every parser.

    Raises:
        Violation: Another error than this package's came out, or an input took too long.
    """
    with tempfile.TemporaryDirectory(prefix="agola-soak-", dir=MEMORY) as directory, contextlib.chdir(directory):
        counts = _damage_all(random.Random(seed), seed)
        if made := os.listdir(directory):  # noqa: PTH208 - names alone
            raise Violation(f"seed {seed}: a parser made {made} in the current directory")
    return counts


def _damage_all(rng: random.Random, seed: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for target in targets():
        for _ in range(EXECUTIONS):
            data = target.encode_checksummed(damage(rng, rng.choice(target.whole)))
            began = time.process_time()
            try:
                target.parse(data)
                counts[f"{target.name}: accepted"] += 1
            except AgolaError:
                counts[f"{target.name}: refused"] += 1
            except Exception as error:
                raise Violation(f"seed {seed}: {target.name}: {error!r} came out of {data[:400]!r}") from error
            if time.process_time() - began > MAX_SECONDS:
                raise Violation(f"seed {seed}: {target.name}: {time.process_time() - began:.1f} s for {data[:400]!r}")
        counts["executions"] += EXECUTIONS
    return counts


def _listed() -> tuple[bytes, ...]:
    ref = FileRef("data/1.data", 900, "ab" * 32, 10, 1, ("note", "a"), ("note", "b"), 800, 4000)
    return (msgspec.json.encode(ref),)


@cache
def targets() -> tuple[Target, ...]:
    """Return the parsers."""
    actions = encode_actions([Put("note", "a", b"x" * 40), Put("note", "b", b"")])
    wal = encode_wal(WalRecord(1, 2, 1, "id", 5, ("g",), actions))
    manifest = encode_manifest(
        Manifest(
            number=3, epoch=1, lineage="0123456789abcdef", position=str(Sequence(1, 2)),
            created=datetime(2019, 7, 1, tzinfo=UTC), data_types=("note",), runs=(Run(()),), origin=Origin.CHECKPOINT,
        )
    )  # fmt: skip
    token = ChangeGroupsToken(5, {"g": 3}, "0123456789abcdef", str(Sequence(1, 2))).encode().encode()
    task = (
        b'{"id":"t","run_id":"r","steps":[{"type":"run","command":"a"},null],"status":{"phase":"running","steps":[{}]}}'
    )
    create = b'{"run_config_tasks":{"a":{"id":"a","depends":{"b":{"task_id":"b"}}}},"group":"/project/p/branch/b"}'
    return (
        Target("WAL", (wal,), lambda data: decode_wal(data, "p")),
        Target("WAL behind its checksum", (wal[4:],), lambda data: decode_wal(data, "p"), _with_crc),
        Target("actions", (actions,), lambda data: decode_actions(data, "p")),
        Target("batch of events", _events(), events.decode_batch),
        Target("batch of events, indexed", _events(), events.decode_indexed),
        Target("batch", (encode_batch([wal]),), lambda data: decode_batch(data, "p")),
        Target("manifest", (manifest,), lambda data: decode_manifest(data, "p")),
        Target("list of files", _listed(), lambda data: decode_entry((b"note\0b", data), "p")),
        Target("sequence", (str(Sequence(1, 2)).encode(),), lambda data: Sequence.parse(_text(data))),
        Target("token", (token,), lambda data: ChangeGroupsToken.decode(_text(data))),
        Target("configuration", (_CONFIG,), lambda data: parse_config(data, "config.yml")),
        Target("HTTP create", (create,), lambda data: decode_json(data, RunCreateRequest)),
        Target("HTTP task", (task,), lambda data: decode_json(data, ExecutorTask)),
        Target("HTTP query", (b"phase=running&result=success&group=/a&start=x&limit=5&asc=&lastrun",), _query),
        Target(
            "storage key", (b"lineages/0000000000001-0123456789abcdef/active.json", "é/a~b".encode()), _store_object
        ),
        Target("settings", (_SETTINGS,), _read_settings_file),
        Target("export", _exports(), _import),
        Target("archive", _archives(), _unpack),
        Target("cache key", (b'a-{{ md5sum "f" }}-{{ env "A" }}-{{ os }}{{ unixtime }}',), _expand),
        Target(
            "globs",
            (b"**/*.[ch]", b"a/**/b?", b"dir/**"),
            lambda data: compile_globs([_text(data)]).fullmatch(_LONG_PATH),
        ),
        Target(
            "S3 URL", (b"s3://bucket/a?endpoint=http://127.0.0.1:1&region=r",), lambda data: parse_s3_url(_text(data))
        ),
        Target("etcd URL", (b"etcd://127.0.0.1:1,[::1]:2/p?tls=true&timeout=5",), lambda data: parse_url(_text(data))),
    )


_CONFIG = b"""
runs:
  - name: r
    when: {branch: [master, /re.*/], tag: {include: "#x#", exclude: y}}
    docker_registries_auth: {r: {type: basic, username: {from_variable: U}, password: p}}
    tasks:
      - name: a
        runtime: {type: pod, arch: amd64, containers: [{image: i, environment: {A: b}}]}
        depends: []
        steps: [clone, {run: make}, {type: save_to_workspace, contents: [{source_dir: d, paths: ["**"]}]}]
      - {name: b, depends: [a, {c: [on_success]}], timeout: 10m, steps: [{restore_cache: {keys: [k], dest_dir: x}}]}
      - {name: c, steps: [{run: {command: "x", name: z}}]}
"""


_SETTINGS = b"""
url = "http://127.0.0.1:4000"
[serve]
port = 4100
[runs.list]
limit = 50
"""


def _events() -> tuple[bytes, ...]:
    given = [events.Event("A", b"x" * 20, tags=["t"], metadata={"by": "ann", "n": [1]}, id="e"), events.Event("B")]
    (put,) = events.place([events.unplaced("s", given)], (5, 2), 1_700_000_000_000_000)
    return (put.data,)


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _with_crc(data: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(data)) + data


def _exports() -> tuple[bytes, ...]:
    directory = tempfile.mkdtemp(prefix="agola-soak-", dir=MEMORY)
    try:
        with agola_core.open(directory, data_types=["note", "tag"], options=Options(background=False)) as dm:
            dm.write_wal([Put("note", f"n{number}", b"x" * number) for number in range(5)] + [Put("tag", "t", b"y")])
            buffer = io.BytesIO()
            dm.export(buffer)
            agola = io.BytesIO()
            dm.export(agola, agola_core.ExportFormat.AGOLA)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    native = buffer.getvalue()
    return native, agola.getvalue(), gzip.compress(native), compress(native, 1)


@cache
def _store() -> agola_core.DataManager:
    directory = tempfile.mkdtemp(prefix="agola-soak-", dir=MEMORY)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return agola_core.open(directory, data_types=["note", "tag"], options=Options(background=False))


def _import(data: bytes) -> object:
    return _store().import_(io.BytesIO(data), dry_run=True)


def _archives() -> tuple[bytes, ...]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, link in (
            ("d", tarfile.DIRTYPE, ""),
            ("d/f" + "x" * 120, tarfile.REGTYPE, ""),
            ("l", tarfile.SYMTYPE, "d"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, 10 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"0123456789"))
    return buffer.getvalue(), compress(buffer.getvalue(), 1)


def _unpack(data: bytes) -> None:
    outer = Path(tempfile.mkdtemp(prefix="agola-soak-", dir=MEMORY))
    try:
        unpack([data], outer / "in/side", overwrite=True, limits=Limits())
    finally:
        outside = sorted(str(path.relative_to(outer)) for path in outer.glob("*") if path.name != "in")
        outside += sorted(path.name for path in (outer / "in").glob("*") if path.name != "side")
        shutil.rmtree(outer, ignore_errors=True)
        if outside:
            raise Violation(f"an archive made {outside} outside of its directory")


def _match(data: bytes) -> object:
    return compile_globs([_text(data)]).fullmatch(_LONG_PATH)


def _query(data: bytes) -> object:
    return parse_query(Call({"type": "http", "query_string": data}))


def _store_object(data: bytes) -> None:
    """Write an object under a key, and find it there and nowhere else."""
    outer, key = Path(tempfile.mkdtemp(prefix="agola-soak-", dir=MEMORY)), _text(data)
    try:
        for make in (PosixStorage, PosixFlatStorage):
            storage = make(outer / "root" / make.__name__)
            storage.write(key, b"x")
            found = [info.path for info in storage.list()]
            if found != [key] or storage.read(key) != b"x":
                raise Violation(f"an object under {key!r} is found as {found}")
            storage.delete(key)
    finally:
        outside = sorted(path.name for path in outer.glob("*") if path.name != "root")
        shutil.rmtree(outer, ignore_errors=True)
        if outside:
            raise Violation(f"a key made {outside} outside of its directory")


def _read_settings_file(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(prefix="agola-soak-", dir=MEMORY) as file:
        file.write(data)
        file.flush()
        SettingsFile(Path(file.name)).all_defaults(cli)


def _expand(data: bytes) -> str:
    return expand_key(
        _text(data),
        read=lambda _: iter((b"x",)),
        environment={"A": "b"},
        arch="amd64",
        clock=lambda: 0.0,
    )


CAMPAIGN = Campaign("fuzz", "damaged inputs of every parser", trial)
