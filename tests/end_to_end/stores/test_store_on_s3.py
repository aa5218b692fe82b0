"""A whole store on a real S3 server: what its users see, and how many requests that takes."""

import io
import subprocess
import sys
import threading
import uuid

import pytest

import agola_core
from agola_core import ConflictError, CorruptionError, Delete, Durability, Options, Put, RecoveryError
from agola_pytest.faults.s3_proxy import S3Proxy

SMALL = {"block_size": 200, "file_size": 2000, "inline_limit": 60, "retain_wals": 2, "grace_period": 0}


@pytest.fixture
def proxy(agola_s3):
    with S3Proxy(agola_s3) as proxy:
        yield proxy


@pytest.fixture
def prefix():
    return uuid.uuid4().hex


@pytest.fixture
def open_store(proxy, prefix, tmp_path):
    def open_one(coordinator="coordinator.db", recover=False, **options):
        return agola_core.open(
            data_types=["n"],
            storage=proxy.url(prefix),
            coordinator=str(tmp_path / coordinator),
            options=Options(background=False, **{**SMALL, **options}),
            durability=options.get("durability", Durability.COORDINATOR),
            recover=recover,
        )

    return open_one


def contents(dm):
    return dict(dm.list_objects("n"))


def test_a_store_lives_on_s3(open_store):
    expected = {}
    with open_store() as dm:
        for number in range(60):
            key = f"{number % 23:03}"
            if number % 7 == 3 and key in expected:
                dm.write_wal([Delete("n", key)])
                del expected[key]
            else:
                expected[key] = b"%d" % number * (number % 40)
                dm.write_wal([Put("n", key, expected[key])])
            if number % 9 == 0:
                dm.checkpoint(force=True)
                dm.clean_up()
                dm.collect_garbage()
        token = dm.change_groups_token(["g"])
        dm.write_wal([Put("n", "g", b"1")], token)
        with pytest.raises(ConflictError):
            dm.write_wal([Put("n", "g", b"2")], token)
        expected["g"] = b"1"
        assert contents(dm) == expected
        assert dm.verify() == []
        exported = io.BytesIO()
        dm.export(exported)
        dm.sync()
    with open_store() as dm:
        assert contents(dm) == expected
        exported.seek(0)
        dm.import_(exported)
        assert contents(dm) == expected
    with open_store("another.db") as dm:  # the coordinator is lost: storage is enough
        assert contents(dm) == expected
        assert dm.verify() == []


def test_a_coordinator_that_is_older_than_the_bucket_is_refused(open_store, tmp_path):
    with open_store() as dm:
        dm.write_wal([Put("n", "a", b"1")])
        dm.sync()
    old = (tmp_path / "coordinator.db").read_bytes()
    with open_store() as dm:
        dm.write_wal([Put("n", "b", b"2")])
        dm.sync()
    (tmp_path / "old.db").write_bytes(old)
    with pytest.raises(RecoveryError):
        open_store("old.db")
    with open_store("old.db", recover=True) as dm:
        assert contents(dm) == {"a": b"1", "b": b"2"}


KILLED = """
import sys, agola_core
from agola_core import Options, Put
options = Options(background=False, inline_limit=60, block_size=200)
with agola_core.open(data_types=["n"], storage=sys.argv[1], coordinator=sys.argv[2], options=options) as dm:
    for number in range(1, 9):
        dm.write_wal([Put("n", str(number), b"x" * 20 * number)])
        print(number, flush=True)
        if number % 3 == 0:
            dm.checkpoint(force=True)
"""


@pytest.mark.parametrize(
    "point", ["commit.after-txn", "sync.before-txn", "checkpoint.before-manifest", "lineage.before-marker"]
)
def test_a_kill_loses_nothing_acknowledged(open_store, proxy, prefix, tmp_path, monkeypatch, point):
    open_store().close()
    if point.startswith("lineage"):
        (tmp_path / "coordinator.db").unlink()
    monkeypatch.setenv("AGOLA_FAULTPOINT", f"{point}:1:kill")
    command = [sys.executable, "-c", KILLED, proxy.url(prefix), str(tmp_path / "coordinator.db")]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    monkeypatch.delenv("AGOLA_FAULTPOINT")
    with open_store() as dm:
        found = contents(dm)
        for number in map(int, killed.stdout.split()):
            assert found[str(number)] == b"x" * 20 * number
        assert dm.checkpoint(force=True)
        assert dm.verify() == []


def kinds(proxy, *matching):
    return [request.method for request in proxy.requests if all(part in request.path for part in matching)]


def test_requests_are_few(open_store, proxy):
    with open_store(durability=Durability.STORAGE, inline_limit=64 * 1024) as dm:
        dm.write_wal([Put("n", "first", b"x")])  # the first one of a process looks whether its lineage is marked
        proxy.requests.clear()
        dm.write_wal([Put("n", "alone", b"x")])
        assert kinds(proxy) == ["PUT"]  # a commit alone: one

        dm.write_wal([Put("n", f"{number:04}", bytes([number % 251]) * 50) for number in range(500)])
        proxy.requests.clear()
        dm.checkpoint(force=True)
        files = len(kinds(proxy, "/data/"))
        assert files >= dm.status().data_files > 0  # the lists of them among them
        assert kinds(proxy).count("PUT") == files + 1  # each data file and list, and the manifest
        assert kinds(proxy).count("GET") <= 1  # the new manifest, as whoever adopts it reads it
        assert len(kinds(proxy)) <= files + 2

    proxy.requests.clear()
    with open_store() as dm:
        asked = [(request.method, request.path, request.query, request.ranged) for request in proxy.requests]
        assert (
            len(asked) == len(set(asked)) == 7
        )  # nothing twice: bucket, store, lineages, marker, WALs, binding, manifest
        dm.read_object("n", "0001")  # the index of its file is known from here on
        for number in range(20):
            proxy.requests.clear()
            dm.read_object("n", f"{number * 2:04}")
            ranges = [request for request in proxy.requests if request.ranged]
            assert len(proxy.requests) == len(ranges) <= 2
            proxy.requests.clear()
            dm.read_object("n", f"{number * 2:04}")
            assert len(proxy.requests) == 0


def test_verify_reads_what_is_large_once(open_store, proxy):
    with open_store(file_size=100_000) as dm:
        for number in range(3):
            dm.write_wal([Put("n", f"{number}", bytes(range(250)) * 400)])
            dm.checkpoint(force=True)
        proxy.requests.clear()
        assert dm.verify() == []
        payloads = [request.path for request in proxy.requests if "/payloads/" in request.path]
        assert len(payloads) == len(set(payloads)) == 3
        assert set(kinds(proxy, "/data/")) == {"GET"}
        assert len(kinds(proxy, "/data/")) <= 2 * len(list(dm.storage.list("data/")))


def test_commits_that_wait_share_their_requests(open_store, proxy, tmp_path):
    with agola_core.open(
        data_types=["n"],
        storage=proxy.url(uuid.uuid4().hex),
        coordinator=str(tmp_path / "shared.db"),
        durability="storage",
    ) as dm:
        proxy.requests.clear()
        proxy.delay = 0.05
        threads = [
            threading.Thread(target=lambda n=n: [dm.write_wal([Put("n", f"{n}-{i}", b"x")]) for i in range(5)])
            for n in range(32)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(contents(dm)) == 160
        assert kinds(proxy, "/wals/").count("PUT") <= 80  # two commits a request at the least; commonly sixteen


def test_a_lost_data_file_is_told_as_damage(open_store):
    with open_store() as dm:
        dm.write_wal([Put("n", "a", b"1")])
        dm.checkpoint(force=True)
    with open_store() as dm:
        (lost,) = [info.path for info in dm.storage.list("data/")]
        dm.storage.delete(lost)
        with pytest.raises(CorruptionError, match="the data file is missing"):
            dm.get("n", "a")  # and not None, as if nobody had written it
        assert [(finding.path, finding.message) for finding in dm.verify()] == [(lost, "the data file is missing")]
