"""Processes on etcd that are killed, or paused past their lease, at the fault points of the procedures: a slice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import agola_core
from agola_core import Options
from tests.fault.datamanager.test_datamanager_crashes import WORKER, check_acknowledged, contents, work


@pytest.mark.parametrize(
    "point",
    ["commit.before-txn", "commit.after-txn", "sync.before-txn", "checkpoint.before-txn", "lineage.before-marker"],
)
def test_a_kill_at_a_fault_point_loses_nothing_acknowledged(tmp_path, agola_etcd, point):
    url = agola_etcd.url(f"killed-{point}")
    killed = work(tmp_path, f"{point}:1:kill", "import", COORDINATOR=url, LOCK_TTL="4")
    assert killed.returncode == -9, killed.stderr
    check_acknowledged([int(line) for line in killed.stdout.split()], contents(tmp_path, url))
    again = work(tmp_path, COORDINATOR=url, LOCK_TTL="4")
    assert again.returncode == 0, again.stderr
    assert set(map(int, again.stdout.split())) <= {int(key) for key in contents(tmp_path, url)}


def wait_stopped(process):
    deadline = time.monotonic() + 60
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("point", ["checkpoint.before-manifest", "checkpoint.before-txn", "clean.before-wals"])
def test_a_process_that_was_paused_past_its_lease_changes_nothing(tmp_path, agola_etcd, point):
    url = agola_etcd.url(f"zombie-{point}")
    environment = {**os.environ, "AGOLA_FAULTPOINT": f"{point}:1:stop", "COORDINATOR": url, "LOCK_TTL": "4"}
    zombie = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        wait_stopped(zombie)
        options = Options(background=False, retain_wals=2, retain_manifests=1, grace_period=0, lock_ttl=4)
        with agola_core.open(tmp_path, coordinator=url, data_types=["n"], options=options) as dm:
            before = dict(dm.list_objects("n"))
            for number in range(5):
                dm.write_wal([agola_core.Put("n", f"9{number:05}", b"new")])
            assert dm.checkpoint(force=True)  # waits until the zombie's lock has ended
            dm.clean_up()
            published = dm.status().manifest
            os.kill(zombie.pid, signal.SIGCONT)
            output, errors = zombie.communicate(timeout=60)
            dm.refresh()
            found = dict(dm.list_objects("n"))
            assert before.items() <= found.items()
            assert all(found[f"9{number:05}"] == b"new" for number in range(5))
            assert dm.status().manifest >= published
            assert dm.verify() == []
        assert {int(line) for line in output.split()} <= {int(key) for key in found}, errors
        if point.startswith("checkpoint"):
            assert "FencedError" in errors
    finally:
        zombie.kill()
        zombie.communicate()
