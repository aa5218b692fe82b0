"""Processes that are stopped past their lease at a fault point, and go on: they publish and delete nothing wrong.

While the zombie is stopped another process takes over what it was doing, goes further, and collects; then the
zombie is resumed. Nothing of what it does then may change what the store is.
"""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest

import agola_core
import agola_core.embedded
from agola_core import Delete, Options, Put
from agola_core.datamanager.format.control import read_control
from agola_core.datamanager.identity.instance import list_instances
from agola_core.runtime import faultpoints

OPTIONS = Options(
    background=False,
    inline_limit=24,
    block_size=50,
    file_size=20,
    retain_wals=0,
    retain_wal_ids=1,
    retain_manifests=1,
    retain_groups=1,
    grace_period=0,
    lock_ttl=1.0,
)
ZOMBIE = textwrap.dedent("""
    import sys
    import msgspec
    import agola_core
    from agola_core import AgolaError, Options, Put
    from agola_core.runtime import faultpoints

    path, procedure, point = sys.argv[1:]
    options = msgspec.json.decode(sys.stdin.buffer.read(), type=Options)
    faultpoints._hook = faultpoints.trigger(f"{point}:1:stop") if procedure == "open" else None
    try:
        dm = agola_core.open(path, data_types=["n"], options=options)
        if procedure == "collect":
            dm.clean_up()  # so that there are payloads to collect
        faultpoints._hook = faultpoints.trigger(f"{point}:1:stop")
        match procedure:
            case "sync":
                dm.sync()
            case "checkpoint":
                dm.checkpoint(force=True)
            case "clean":
                dm.clean_up()
            case "collect":
                dm.collect_garbage()
            case "commit":
                dm.write_wal([Put("n", "zombie", b"z" * 100)])
        print("done")
    except AgolaError as error:
        print(type(error).__name__)
""")
CASES = [
    *(("sync", point) for point in ("sync.before-batch", "sync.before-txn")),
    *(
        ("checkpoint", point)
        for point in (
            "instance.before-lock",
            "checkpoint.before-data-file",
            "checkpoint.before-file-list",
            "checkpoint.before-manifest",
            "checkpoint.before-txn",
            "instance.before-unlock",
        )
    ),
    *(("clean", point) for point in ("clean.before-wals", "clean.before-ids")),
    *(("collect", point) for point in ("instance.before-lock", "collect.before-barrier", "collect.before-delete")),
    *(("commit", point) for point in ("commit.before-payload", "commit.before-txn")),
    *(
        ("open", point)
        for point in (
            "lineage.before-manifest",
            "lineage.before-txn",
            "lineage.before-store",
            "lineage.before-marker",
            "lineage.before-binding",
        )
    ),
]


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """A store in which every procedure has something to do."""
    path = tmp_path_factory.mktemp("zombies") / "store"
    with agola_core.open(path, data_types=["n"], options=OPTIONS) as dm:
        for number in range(6):
            dm.write_wal([Put("n", f"{number}", b"x" * 30 * number)], wal_id=f"w{number}")
            if number in {2, 4}:
                dm.checkpoint(force=True)
        dm.write_wal([Put("n", "unsynced", b"1" * 50)])
        assert dm.status().data_files > 2, "no run in lists"
    return path


def start(path, procedure, point):
    import msgspec

    options = msgspec.json.encode(
        msgspec.structs.replace(OPTIONS, instance="zombie", grace_period=float(procedure == "commit"))
    )
    process = subprocess.Popen(
        [sys.executable, "-c", ZOMBIE, str(path), procedure, point],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdin.write(options)
    process.stdin.close()
    process.stdin = None
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        pytest.fail(f"it never came to {point}: {process.stdout.read()!r} {process.stderr.read()!r}")
    return process


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the zombie's lease did not end"
        time.sleep(0.05)


def test_every_fault_point_of_a_leased_procedure_is_a_case():
    procedures = {"sync", "checkpoint", "clean", "collect", "lineage"}
    declared = {point for point in faultpoints.declared() if point.split(".")[0] in procedures}
    # Reached with a hundred forgotten groups, or ten thousand revisions: each is one transaction behind a compare.
    assert declared - {point for _, point in CASES} == {"clean.before-groups", "clean.before-compaction"}


@pytest.mark.parametrize(("procedure", "point"), CASES)
def test_a_zombie_changes_nothing(tmp_path, used, procedure, point):
    path = tmp_path / "store"
    if procedure != "open":
        shutil.copytree(used, path)
    zombie = start(path, procedure, point)
    try:
        coordinator, storage = agola_core.embedded.open_backends(path)
        wait_until(lambda: not any(record.name == "zombie" for record in list_instances(coordinator)))
        with agola_core.open(path, data_types=["n"], options=OPTIONS) as dm:
            for number in range(3):
                dm.write_wal([Put("n", "1", b"new" * 20), Delete("n", "2"), Put("n", f"after{number}", b"y" * 40)])
                dm.checkpoint(force=True)
                dm.clean_up()
                dm.collect_garbage()
            dm.write_wal([Put("n", "newest", b"n")])
            expected = dict(dm.list_objects("n"))
            before = read_control(coordinator)
        os.kill(zombie.pid, signal.SIGCONT)
        output, errors = zombie.communicate(timeout=60)
        assert b"Traceback" not in errors or b"the lock was lost while the store was opened" in errors, errors
        after = read_control(coordinator)
        if point != "instance.before-lock":  # had it none yet, it may take one now, and do honest work
            assert after.checkpoint == before.checkpoint
        assert after.lineage == before.lineage
        coordinator.close()
        storage.close()
        if procedure == "commit" and output == b"done\n":
            expected["zombie"] = b"z" * 100
        check(path, expected)
        for file in path.glob("coordinator.db*"):
            file.unlink()
        check(path, expected)
    finally:
        zombie.kill()
        zombie.communicate()


def check(path, expected):
    """Everything is there, whole, and the storage alone has it after a sync."""
    with agola_core.open(path, data_types=["n"], options=OPTIONS) as dm:
        assert dict(dm.list_objects("n")) == expected
        assert dm.verify() == []
        dm.sync()
        dm.collect_garbage()
        assert dict(dm.list_objects("n")) == expected
        assert dm.verify() == []
