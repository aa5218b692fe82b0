"""A service that is killed in the middle of a step: the next one finds the step again."""

import os
import signal

import httpx2
import pytest

from agola_cli.runs.patience import Patience
from agola_core.errors import UnavailableError
from agola_http.client import Client

API = "/api/v1alpha"


@pytest.fixture
def serve(tree, wait_for_line):
    started = []

    def start(*options):
        process = tree.start("serve", "--no-tokens", *(options or ("--port", "0")))
        started.append(process)
        url = wait_for_line(process, "serving on ")[-1].split()[-1]
        return process, httpx2.Client(base_url=url, timeout=30, trust_env=False)

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        if not process.stdout.closed:
            process.stdout.close()


def request(command, **fields):
    steps = [{"type": "run", "name": "one", "command": command}, {"type": "run", "name": "two", "command": "echo two"}]
    tasks = {"t1": {"id": "t1", "name": "only", "depends": {}, "steps": steps}}
    return {"name": "r", "group": "/project/p1", "run_config_tasks": tasks, **fields}


def follow(client, run_id, step, task_id="t1"):
    params = {"runid": run_id, "taskid": task_id, "step": str(step), "follow": ""}
    return client.get(f"{API}/logs", params=params).text


def finished(client, run_id):
    while True:
        run = client.get(f"{API}/runs/{run_id}").json()["run"]
        if run["phase"] == "finished":
            return run
        for task_id in run["tasks"]:
            follow(client, run_id, 1, task_id)


def test_a_running_step_survives_the_service_and_is_not_run_twice(serve, tmp_path, kill_now):
    gate, count = tmp_path / "gate", tmp_path / "count"
    command = f"echo begun; echo x >> {count}; while [ ! -e {gate} ]; do sleep 0.05; done; echo ended"
    process, client = serve()
    with client:
        run_id = client.post(f"{API}/runs", json=request(command)).json()["run"]["id"]
        params = {"runid": run_id, "taskid": "t1", "step": "0", "follow": ""}
        with client.stream("GET", f"{API}/logs", params=params) as stream:
            assert next(stream.iter_bytes()) == b"begun\n"
            kill_now(process)
    _, client = serve()
    with client:
        assert client.get(f"{API}/runs/{run_id}").json()["run"]["phase"] == "running"
        gate.touch()
        assert follow(client, run_id, 0) == "begun\nended\n"
        run = finished(client, run_id)
        assert run["result"] == "success"
        assert follow(client, run_id, 1) == "two\n"
    assert count.read_text() == "x\n"


def test_a_follower_goes_on_when_the_service_is_back(tree, serve, tmp_path, wait_for_line, kill_now):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    process, client = serve()
    url, port = f"http://127.0.0.1:{client.base_url.port}", str(client.base_url.port)
    with client:
        run_id = client.post(f"{API}/runs", json=request(f"echo begun; cat {gate}")).json()["run"]["id"]
    follower = tree.start("runs", "logs", run_id, "-f", "--url", url)
    wait_for_line(follower, "| begun")
    kill_now(process)
    wait_for_line(follower, "trying again for up to 120 s")
    process, client = serve("--port", port)
    gate.write_text("ended\n")
    output, _ = follower.communicate()
    assert follower.returncode == 0, output
    assert [line.split(" | ")[1] for line in output.splitlines() if " | " in line] == ["ended", "two"]
    with Client(url, retries=0) as gone:
        bundle = gone.get_run(run_id)
        kill_now(process)
        said = []
        with pytest.raises(UnavailableError, match=f"look at it again by `agola-core runs show {run_id} --url x`"):
            Patience(gone, said.append, " --url x", seconds=0).wait_change(bundle.run, 0)
    assert len(said) == 1


def test_a_step_that_ended_meanwhile_keeps_its_result(serve, tmp_path, kill_now):
    gate, done = tmp_path / "gate", tmp_path / "done"
    command = f"echo begun; while [ ! -e {gate} ]; do sleep 0.02; done; touch {done}; exit 9"
    process, client = serve()
    with client:
        run_id = client.post(f"{API}/runs", json=request(command)).json()["run"]["id"]
        params = {"runid": run_id, "taskid": "t1", "step": "0", "follow": ""}
        with client.stream("GET", f"{API}/logs", params=params) as stream:
            assert next(stream.iter_bytes()) == b"begun\n"
            kill_now(process)
    gate.touch()
    while not done.exists():
        pass
    _, client = serve()
    with client:
        run = finished(client, run_id)
        assert run["result"] == "failed"
        assert run["tasks"]["t1"]["steps"][0]["exit_code"] == 9


def test_a_failed_run_restarts_from_what_failed(serve, tmp_path):
    marker = tmp_path / "marker"
    _, client = serve()
    with client:
        body = request(f"test -e {marker}")
        good = {"id": "t0", "name": "good", "depends": {}, "steps": [{"type": "run", "command": "echo kept"}] * 2}
        body["run_config_tasks"]["t0"] = good
        run_id = client.post(f"{API}/runs", json=body).json()["run"]["id"]
        assert finished(client, run_id)["result"] == "failed"
        refused = client.post(f"{API}/runs", json={"run_id": "none"})
        assert refused.status_code == 400
        marker.touch()
        again = client.post(f"{API}/runs", json={"run_id": run_id}).json()["run"]
        assert (again["counter"], again["id"] > run_id) == (2, True)
        assert "t0" in again["tasks"]
        assert "t1" not in again["tasks"]
        run = finished(client, again["id"])
        assert run["result"] == "success"
        assert follow(client, again["id"], 0, "t0") == "kept\n"
        refused = client.post(f"{API}/runs", json={"run_id": again["id"]})
        assert "has success result" in refused.json()["message"]
