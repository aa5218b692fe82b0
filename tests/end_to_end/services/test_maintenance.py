"""Maintenance mode with two services on one store, as real processes."""

import json
import os
import signal
import subprocess
import sys
import uuid

import httpx2
import pytest

API = "/api/v1alpha"
COMMAND = [sys.executable, "-m", "agola_cli.main"]


class Service:
    """A served instance with a directory of its own, on a shared store."""

    def __init__(self, data_dir, store):
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--no-tokens", "--port", "0", "--data-dir", str(data_dir), *store],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
        )
        line = self.process.stdout.readline()
        assert line.startswith("serving on "), line
        self.client = httpx2.Client(base_url=line.split()[-1] + API, timeout=30, trust_env=False)

    def end(self):
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture(params=["sqlite", "etcd"])
def store(tmp_path, request):
    (tmp_path / "shared").mkdir()
    coordinator = str(tmp_path / "shared/coordinator.db")
    if request.param == "etcd":
        coordinator = request.getfixturevalue("agola_etcd").url(uuid.uuid4().hex)
    return ["--storage", str(tmp_path / "shared/storage"), "--coordinator", coordinator]


@pytest.fixture
def services(tmp_path, store):
    started = []

    def start(name):
        started.append(Service(tmp_path / name, store))
        return started[-1]

    yield start
    for service in started:
        service.end()


@pytest.fixture
def command(store):
    def run(*arguments):
        named = store[2:] if arguments[0] == "maintenance" else store
        return subprocess.run(
            [sys.executable, "-m", "agola_cli.main", *arguments, *(() if "--url" in arguments else named)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def create_run(client):
    """Make a run that is finished at once, on whichever instance sees it first."""
    return client.post("/runs", json={"name": "r", "group": "/project/p1", "setup_errors": ["no configuration"]})


def wait_archived(client, run_id):
    for _ in range(2000):
        run = client.get(f"/runs/{run_id}").json()["run"]
        if run.get("archived"):
            return run
    raise AssertionError(run)


def test_every_instance_enters_and_leaves_in_its_process(services, command, tmp_path):
    one, two = services("one"), services("two")
    first = create_run(one.client).json()["run"]["id"]
    wait_archived(one.client, first)
    backup = one.client.get("/export").content
    second = create_run(two.client).json()["run"]["id"]
    wait_archived(two.client, second)

    assert one.client.get("/maintenance").json()["enabled"] is False
    refused = one.client.post("/import", content=backup)
    assert (refused.status_code, refused.json()) == (400, {"message": "not in maintenance mode"})
    assert one.client.delete("/maintenance").json() == {"message": "maintenance mode already disabled"}

    on = command("maintenance", "on", "--wait")
    assert on.returncode == 0, on.stderr
    assert "2 instances" in on.stderr
    assert command("maintenance", "on").returncode == 2
    again = two.client.put("/maintenance")
    assert (again.status_code, again.json()) == (400, {"message": "maintenance mode already enabled"})
    status = json.loads(command("maintenance", "status", "--json").stdout)
    assert status["settled"]
    assert {item["pid"] for item in status["instances"]} == {one.process.pid, two.process.pid}
    assert {item["state"] for item in status["instances"]} == {"maintenance"}
    assert "maintenance mode is on" in command("maintenance", "status").stdout

    for client in (one.client, two.client):
        for answer in (
            client.get("/runs"),
            client.get(f"/runs/{first}"),
            create_run(client),
            client.get("/executor/e1/tasks/t1"),
            client.get("/unknown"),
        ):
            assert answer.status_code == 503
            assert "maintenance mode" in answer.json()["message"]
        assert client.get("/export").status_code == 200

    assert one.client.post("/import", content=backup[:-9]).status_code == 400
    done = one.client.post("/import", content=backup)
    assert (done.status_code, done.content) == (200, b"")

    assert two.client.delete("/maintenance").status_code == 200
    off = command("maintenance", "off")
    assert off.returncode == 2
    assert "already disabled" in off.stderr
    for service in (one, two):
        for _ in range(300):
            if service.client.get("/maintenance").json()["settled"]:
                break
        assert [run["id"] for run in service.client.get("/runs").json()["runs"]] == [first]
        assert service.process.poll() is None
    backup_file = tmp_path / "backup.zst"
    url = str(one.client.base_url).removesuffix(f"{API}/")
    assert command("export", "--url", url, "-o", str(backup_file)).returncode == 0
    assert command("import", "--url", url, str(backup_file), "--dry-run").returncode == 0
    refused = command("import", "--url", url, str(backup_file), "--yes")
    assert refused.returncode == 2
    assert "not in maintenance mode" in refused.stderr
    assert "maintenance mode is off" in command("maintenance", "status", "--url", url).stdout
    third = create_run(two.client).json()["run"]["id"]
    assert third > second
    assert wait_archived(one.client, third)["phase"] == "setuperror"


def test_an_instance_that_starts_in_maintenance_waits_and_a_dead_one_is_not_waited_for(services, command):
    one = services("one")
    assert command("maintenance", "on", "--wait").returncode == 0
    two = services("two")
    assert two.client.get("/runs").status_code == 503
    assert two.client.get("/maintenance").json()["settled"] is True
    two.process.kill()
    two.process.wait()
    off = command("maintenance", "off", "--wait")
    assert off.returncode == 0, off.stderr
    assert "1 instance" in off.stderr
    assert one.client.get("/runs").status_code == 200
