"""Processes that are really killed at each fault point of each procedure: nothing acknowledged is lost."""

import os
import subprocess
import sys
import textwrap

import pytest

import agola_core
import agola_core.runservice.service  # declares the run service's points
from agola_core import Options, faultpoints

# Writes WALs and does every procedure between them; prints each WAL once it is acknowledged.
WORKER = textwrap.dedent("""
    import io, sys
    import agola_core
    from agola_core import Options, Put, Delete

    options = Options(background=False, inline_limit=24, block_size=100, file_size=300, retain_wals=2,
                      retain_wal_ids=2, retain_manifests=1, retain_groups=1, grace_period=0)
    with agola_core.open(sys.argv[1], data_types=["n"], options=options, recover=False) as dm:
        start = max((int(key) for key, _ in dm.list_objects("n")), default=0)
        for number in range(start + 1, start + 20):
            token = dm.change_groups_token([f"g{number}"])
            dm.write_wal([Put("n", f"{number:06}", b"x" * number)], token, wal_id=f"w{number}")
            print(number, flush=True)
            if number % 3 == 0:
                dm.checkpoint(force=True)
                dm.clean()
                dm._upkeep.cleaner.compact()
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
    # Reached only with an outcome in doubt, a hundred forgotten groups, or ten thousand revisions.
    and point not in {"commit.before-barrier", "clean.before-groups", "clean.before-compaction"}
)


def work(path, point="", *more):
    environment = {**os.environ, **({"AGOLA_FAULTPOINT": point} if point else {})}
    return subprocess.run(
        [sys.executable, "-c", WORKER, str(path), *more], capture_output=True, text=True, check=False, env=environment
    )


def contents(path):
    with agola_core.open(path, data_types=["n"], options=Options(background=False)) as dm:
        return dict(dm.list_objects("n"))


@pytest.mark.parametrize(
    ("point", "hit"),
    [(point, hit) for point in POINTS for hit in (1, 2) if (point, hit) != ("lineage.before-store", 2)],  # once only
)
def test_a_kill_at_a_fault_point_loses_nothing_acknowledged(tmp_path, point, hit):
    killed = work(tmp_path, f"{point}:{hit}:kill", "import")
    assert killed.returncode == -9, killed.stderr
    acknowledged = [int(line) for line in killed.stdout.split()]
    found = contents(tmp_path)
    for number in acknowledged:
        assert found.pop(f"{number:06}") == b"x" * number
    # At most the WAL that was on its way may be there beyond what was acknowledged: whole, and the next one.
    following = max(acknowledged, default=0) + 1
    assert found in ({}, {f"{following:06}": b"x" * following})
    again = work(tmp_path)
    assert again.returncode == 0, again.stderr
    assert set(map(int, again.stdout.split())) <= {int(key) for key in contents(tmp_path)}


def test_a_kill_of_the_recovery_itself_is_survived(tmp_path):
    assert work(tmp_path).returncode == 0
    with agola_core.open(tmp_path, data_types=["n"], options=Options(background=False)) as dm:
        dm.sync()
    whole = contents(tmp_path)
    for point in (
        "checkpoint.before-data-file",  # the fold of the WALs after the last checkpoint
        "lineage.before-manifest",
        "lineage.before-txn",
        "lineage.before-marker",
    ):
        for file in tmp_path.glob("coordinator.db*"):
            file.unlink()
        killed = work(tmp_path, f"{point}:1:kill")
        assert killed.returncode == -9, (point, killed.stderr)
        assert contents(tmp_path) == whole


def test_every_write_of_the_datamanager_passes_a_fault_point(tmp_path, monkeypatch):
    """Between two writes of a backend there is always a named point, so tests can stop between any two."""
    from agola_core.coordinator.sqlite import SQLiteCoordinator
    from agola_core.objectstorage.posix import PosixStorage

    passed: list[str] = []
    unguarded: list[str] = []

    def watched(owner, name):
        original = getattr(owner, name)

        def call(self, *args, **kwargs):
            writes = name != "txn" or any(type(op).__name__ != "GetOp" for op in (*args[1], *args[2:3]))
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
