"""Processes that are really killed at each fault point of each procedure: nothing acknowledged is lost."""

import itertools
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

import agola_core
import agola_core.runservice.service  # declares the run service's points
from agola_core import Options
from agola_core.runtime import faultpoints
from tests.support.leases import end_leases

# Writes WALs and does every procedure between them; prints each WAL once it is acknowledged.
WORKER = textwrap.dedent("""
    import io, os, sys
    import agola_core
    from agola_core import Options, Put, Delete

    from agola_core.datamanager.background import wal_cleanup
    from agola_core.errors import UnknownOutcomeError

    wal_cleanup._HISTORY = 5  # so that a few revisions are enough to compact

    def lose_every_fifth_answer(coordinator):
        # After it was applied, or before: the outcome must be found out.
        real, count = coordinator.txn, 0

        def txn(compare, then, otherwise=()):
            nonlocal count
            if any(op.key.startswith("dm/wals/") and hasattr(op, "value") for op in then):
                count += 1
                if count % 10 == 5:
                    real(compare, then, otherwise)
                if count % 5 == 0:
                    raise UnknownOutcomeError("the answer was lost")
            return real(compare, then, otherwise)

        coordinator.txn = txn

    options = Options(background=False, inline_limit=24, block_size=50, file_size=20, retain_wals=2,
                      retain_wal_ids=2, retain_manifests=1, retain_groups=1, grace_period=0,
                      lock_ttl=float(os.environ.get("LOCK_TTL", "3")))
    coordinator = os.environ.get("COORDINATOR")
    with agola_core.open(sys.argv[1], coordinator=coordinator, data_types=["n"], options=options) as dm:
        lose_every_fifth_answer(dm.coordinator)
        start = max((int(key) for key, _ in dm.list_objects("n")), default=0)
        for number in range(start + 1, start + 20):
            token = dm.change_groups_token([f"g{number}"])
            dm.write_wal([Put("n", f"{number:06}", b"x" * number)], token, wal_id=f"w{number}")
            print(number, flush=True)
            if number % 6 == 0:  # more groups than are kept
                many = dm.change_groups_token([f"many-{number}-{index}" for index in range(120)])
                dm.write_wal([Put("n", f"{number:06}", b"x" * number)], many)
            if number % 3 == 0:
                dm.checkpoint(force=True)
                dm.clean_up()
                dm._store.tasks.wal_cleanup.compact()
                dm.collect_garbage()
        if len(sys.argv) > 2:
            exported = io.BytesIO()
            dm.export(exported)
            exported.seek(0)
            dm.import_(exported)
""")

POINTS = sorted(
    point
    for point in faultpoints.declared()
    if point.split(".")[0] in {"commit", "sync", "checkpoint", "clean", "collect", "instance", "lineage"}
)


def work(path, point="", *more, **variables):
    environment = {**os.environ, **({"AGOLA_FAULTPOINT": point} if point else {}), **variables}
    return subprocess.run(
        [sys.executable, "-c", WORKER, str(path), *more], capture_output=True, text=True, check=False, env=environment
    )


def open_killed_at(path, point):
    opening = "import sys, agola_core as a; a.open(sys.argv[1], data_types=['n'], options=a.Options(lock_ttl=3))"
    environment = {**os.environ, "AGOLA_FAULTPOINT": f"{point}:1:kill"}
    return subprocess.run(
        [sys.executable, "-c", opening, str(path)], capture_output=True, text=True, check=False, env=environment
    )


def contents(path, coordinator=None):
    options = Options(background=False, lock_ttl=3)
    with agola_core.open(path, coordinator=coordinator, data_types=["n"], options=options) as dm:
        return dict(dm.list_objects("n"))


def check_acknowledged(acknowledged, found):
    for number in acknowledged:
        assert found.pop(f"{number:06}") == b"x" * number
    # At most the WAL that was on its way may be there beyond what was acknowledged: whole, and the next one.
    following = max(acknowledged, default=0) + 1
    assert found in ({}, {f"{following:06}": b"x" * following})


@pytest.mark.parametrize(
    ("point", "hit"),
    [(point, hit) for point in POINTS for hit in (1, 2) if (point, hit) != ("lineage.before-store", 2)],  # once only
)
def test_a_kill_at_a_fault_point_loses_nothing_acknowledged(tmp_path, point, hit):
    killed = work(tmp_path, f"{point}:{hit}:kill", "import")
    assert killed.returncode == -9, killed.stderr
    acknowledged = [int(line) for line in killed.stdout.split()]
    check_acknowledged(acknowledged, contents(tmp_path))
    again = work(tmp_path)
    assert again.returncode == 0, again.stderr
    assert set(map(int, again.stdout.split())) <= {int(key) for key in contents(tmp_path)}


RECOVERY_POINTS = (
    "checkpoint.before-data-file",  # the fold of the WALs after the last checkpoint
    "recovery.before-ids",
    "recovery.before-ids-part",
    "lineage.before-manifest",
    "lineage.before-txn",
    "lineage.before-marker",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of a store whose storage has everything."""
    store = tmp_path_factory.mktemp("whole")
    assert work(store).returncode == 0
    with agola_core.open(store, data_types=["n"], options=Options(background=False)) as dm:
        dm.sync()
    return store


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *((point, point) for point in RECOVERY_POINTS),
        *itertools.pairwise(RECOVERY_POINTS),
        (RECOVERY_POINTS[-1], RECOVERY_POINTS[0]),
    ],
)
def test_a_kill_of_the_recovery_itself_is_survived(whole, tmp_path, first, second):
    copy = tmp_path / "copy"
    shutil.copytree(whole / "storage", copy / "storage")
    for point in (first, second):  # a kill of the recovery, and of the recovery from that
        killed = open_killed_at(copy, point)
        # After the switch the marker alone is left to write: other points are not passed again.
        assert killed.returncode == -9 or first == RECOVERY_POINTS[-1] != second, killed.stderr
        end_leases(copy)
    assert contents(copy) == contents(whole)


def test_every_write_of_the_datamanager_passes_a_fault_point(tmp_path, monkeypatch):
    """Between two writes of a backend there is always a named point, so tests can stop between any two."""
    from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator
    from agola_core.objectstorage.posix.storage import PosixStorage

    passed: list[str] = []
    unguarded: list[str] = []

    def watched(owner, name):
        original = getattr(owner, name)

        def call(self, *args, **kwargs):
            writes = name != "txn" or any(
                type(op).__name__ != "GetOp" for op in (*args[1], *(args[2] if len(args) > 2 else ()))
            )
            if writes:
                if not passed:
                    unguarded.append(f"{owner.__name__}.{name} {args[:1]}")
                passed.clear()
            return original(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    watched(SQLiteCoordinator, "txn")
    watched(PosixStorage, "write")
    watched(PosixStorage, "delete")
    monkeypatch.setattr(sys, "argv", ["worker", str(tmp_path), "import"])
    with faultpoints.arm(passed.append):
        exec(WORKER, {"print": lambda *_, **__: None})
    # The lock of the opening is the coordinator's own affair.
    assert [write for write in unguarded if "initialise" not in write] == []
