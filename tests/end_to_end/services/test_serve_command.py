"""`agola-core serve`: the run service behind HTTP, as a client meets it."""

import json
import signal
import socket
import threading

import httpx2
import pytest

import agola_core
from agola_core.runservice.archive.projection import DATA_TYPES

API = "/api/v1alpha"


@pytest.fixture
def server(tree, wait_for_line):
    process = tree.start("serve", "--no-tokens", "--port", "0")
    line = wait_for_line(process, "serving on ")[-1]
    with httpx2.Client(base_url=line.split()[-1], timeout=30, trust_env=False) as client:
        client.process = process
        yield client
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    process.stdout.close()


def run_request(*commands, group="/project/p1/branch/main", task_id="t1", **fields):
    steps = [{"type": "run", "name": command, "command": command} for command in commands]
    tasks = {task_id: {"id": task_id, "name": "only", "depends": {}, "steps": steps, "runtime": {}}}
    return {"name": "checks", "group": group, "run_config_tasks": tasks, **fields}


def wait_finished(client, run_id):
    """Follow the log of the only task to its end, then the run is about to be finished."""
    for _ in range(200):
        run = client.get(f"{API}/runs/{run_id}").json()["run"]
        if run["phase"] in {"finished", "setuperror", "cancelled"}:
            return run
        client.get(f"{API}/logs", params={"runid": run_id, "taskid": "t1", "step": "0", "follow": ""})
    raise AssertionError(run)


def test_a_run_from_its_creation_to_its_log_and_export(server, tree):
    created = server.post(f"{API}/runs", json=run_request("echo hello; echo $GREETING", environment={"GREETING": "ü"}))
    assert created.status_code == 201
    assert created.headers["content-type"] == "application/json"
    run = created.json()["run"]
    assert (run["phase"], run["result"], run["counter"]) == ("queued", "unknown", 1)
    assert created.json()["run_config"]["id"] == run["id"]
    assert wait_finished(server, run["id"])["result"] == "success"
    log = server.get(f"{API}/logs", params={"runid": run["id"], "taskid": "t1", "step": "0"})
    assert log.text == "hello\nü\n"
    setup = server.get(f"{API}/logs", params={"runid": run["id"], "taskid": "t1", "setup": ""})
    assert "only" in setup.text
    listed = server.get(f"{API}/runs", params={"group": "/project/p1"}).json()
    assert [item["id"] for item in listed["runs"]] == [run["id"]]
    assert server.get(f"{API}/runs", params={"group": "/project/p"}).json()["runs"] == []
    lines = server.get(f"{API}/export").content.splitlines()
    assert json.loads(lines[0])["data_types"] == list(DATA_TYPES)
    assert json.loads(lines[-1])["entries"]["runconfig"] == 1


def test_a_log_is_followed_while_the_step_runs(server, tmp_path):
    gate = tmp_path / "gate"
    command = f"echo first; while [ ! -e {gate} ]; do sleep 0.02; done; echo last"
    run_id = server.post(f"{API}/runs", json=run_request(command)).json()["run"]["id"]
    params = {"runid": run_id, "taskid": "t1", "step": "0", "follow": ""}
    with server.stream("GET", f"{API}/logs", params=params) as stream:
        pieces = stream.iter_bytes()
        assert next(pieces) == b"first\n"
        gate.touch()
        assert b"".join(pieces) == b"last\n"
    assert wait_finished(server, run_id)["result"] == "success"


def test_runs_are_stopped_cancelled_and_queued_by_group(server, tmp_path):
    first = server.post(f"{API}/runs", json=run_request("echo on; sleep 1000")).json()["run"]["id"]
    params = {"runid": first, "taskid": "t1", "step": "0", "follow": ""}
    with server.stream("GET", f"{API}/logs", params=params) as stream:
        assert next(stream.iter_bytes()) == b"on\n"
        second = server.post(f"{API}/runs", json=run_request("true", task_id="t2")).json()["run"]["id"]
        assert server.get(f"{API}/runs/{second}").json()["run"]["phase"] == "queued"
        cancel = {"action_type": "changephase", "phase": "cancelled"}
        assert server.put(f"{API}/runs/{second}/actions", json=cancel).content == b""
        assert wait_finished(server, second)["phase"] == "cancelled"
        assert server.put(f"{API}/runs/{first}/actions", json={"action_type": "stop"}).status_code == 200
    assert wait_finished(server, first)["result"] == "stopped"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/runs/none", None, 404, 'run "none" doesn\'t exist'),
        ("POST", "/runs", b"{", 400, "malformed body"),
        ("POST", "/runs", b"[" * 100_000, 400, "malformed body"),
        ("POST", "/runs", b'{"name":"x"}', 400, "run group is empty"),
        ("POST", "/runs", b'{"group":"x"}', 400, "must be an absolute path"),
        ("POST", "/runs", b'{"group":"/project/x"}', 400, "empty run config tasks and setup errors"),
        ("GET", "/runs?limit=x", None, 400, "limit must be a number"),
        ("GET", "/logs?runid=a", None, 400, "logs needs"),
        ("GET", "/logs?runid=a&taskid=b&step=0", None, 404, "no such run with id: a"),
        ("PUT", "/runs/none/actions", b'{"action_type":"dance"}', 400, "malformed body"),
        ("PUT", "/runs/none/actions", b'{"action_type":"stop"}', 404, "not active"),
    ],
)
def test_bad_requests_get_one_clear_message(server, method, path, body, status, message):
    answer = server.request(method, API + path, content=body)
    assert answer.status_code == status
    assert message in answer.json()["message"]


def test_sigterm_ends_everything_cleanly_also_with_an_open_stream(server, tree):
    run_id = server.post(f"{API}/runs", json=run_request("echo on; sleep 1000")).json()["run"]["id"]
    params = {"runid": run_id, "taskid": "t1", "step": "0", "follow": ""}
    ended = threading.Event()

    def follow():
        try:
            with server.stream("GET", f"{API}/logs", params=params) as stream:
                for piece in stream.iter_bytes():
                    assert piece
                    server.process.send_signal(signal.SIGTERM)
        except httpx2.HTTPError:
            pass
        ended.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert server.process.wait(30) == 0
    assert ended.wait(10)
    thread.join()
    assert "Traceback" not in server.process.stdout.read()
    with agola_core.open(tree.data_dir, data_types=DATA_TYPES) as dm:
        assert [key for key, _ in dm.list_objects("runconfig")] == [run_id]


def test_a_port_in_use_is_one_clear_error(tree):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = tree.run("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 3
    assert "cannot listen on 127.0.0.1" in done.stderr
    done = tree.run("serve", "--no-tokens", "--host", "0.0.0.0")
    assert done.returncode == 2
    assert "loopback only" in done.stderr
