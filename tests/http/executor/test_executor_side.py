"""What an executor of Agola 0.2 sends, literally, and what it must be answered."""

import io
import json
import os
import tarfile
import uuid
from pathlib import Path

import pytest

API = "/api/v1alpha"


@pytest.fixture
def server(start_server):
    """A server of the test's own, so that the only executor is the test's."""
    with start_server() as running:
        yield running


@pytest.fixture
def executor(server):
    """Register an executor as Agola's does, and return its id."""
    executor_id = str(uuid.uuid4())
    report(server, executor_id)
    return executor_id


def report(server, executor_id, **fields):
    status = {"id": executor_id, "listenURL": "http://127.0.0.1:1", "archs": ["amd64"], "executor_group": executor_id}
    status["last_status_update_time"] = "0001-01-01T00:00:00Z"
    answer = server.request("POST", f"{API}/executor/{executor_id}", {**status, **fields})
    assert_empty(answer)


def assert_empty(answer, status=200):
    assert (answer.status, answer.headers.get("content-length"), answer.body) == (status, "0", b"")


def scheduled(server, executor_id, create_run):
    """Create a run, let it start, and return its task once the executor is given it."""
    run = create_run(group=f"/project/{executor_id}", task_id=f"t-{executor_id}")
    server.request("PUT", f"{API}/runs/{run['id']}/actions", {"action_type": "changephase", "phase": "running"})
    while True:
        tasks = server.request("GET", f"{API}/executor/{executor_id}/tasks").json()
        if tasks:
            return run, tasks[0]
        server.service.wait_change(server.service.find_run(run["id"]), 0.05)


def test_an_executor_is_registered_by_the_id_in_its_body_and_the_servers_clock(server, executor):
    report(server, executor, labels={"zone": "<b>"}, unknown="ignored")
    listed = server.request("GET", f"{API}/executors")
    assert rb"\u003cb\u003e" in listed.body
    found = next(item for item in listed.json() if item["id"] == executor)
    assert found["listenURL"] == "http://127.0.0.1:1"
    assert found["last_status_update_time"] > "2019"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"id":3}', b'"x"', b"null", b"{}", b'{"id":""}'])
def test_a_report_that_is_none_is_refused(server, body):
    answer = server.request("POST", f"{API}/executor/e1", body)
    assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
    assert answer.message


def test_an_unknown_executor_has_no_tasks(server):
    answer = server.request("GET", f"{API}/executor/nobody/tasks")
    assert (answer.status, answer.body) == (200, b"[]\n")
    answer = server.request("GET", f"{API}/executor/nobody/tasks/none")
    assert (answer.status, isinstance(answer.message, str)) == (404, True)


def test_a_task_from_its_start_to_its_end_as_agolas_executor_tells_it(server, executor, create_run):
    run, task = scheduled(server, executor, create_run)
    assert task["status"]["phase"] == "notstarted"
    assert task["status"]["executor_id"] == executor
    assert len(task["status"]["steps"]) == len(task["steps"]) == 1
    assert {"SetupError", "FailError", "privileged", "docker_registries_auth"} <= set(task)
    one = server.request("GET", f"{API}/executor/{executor}/tasks/{task['id']}")
    assert (one.json(), one.body[-1:]) == (task, b"\n")
    for unknown in ("attempt", "timeout"):  # Agola's executor drops what it does not know
        task.pop(unknown, None)
    step = {"phase": "running", "start_time": "2019-07-01T10:00:00.123456+02:00"}
    task["status"] = {"executor_id": executor, "phase": "running", "setup_step": {"phase": "success"}, "steps": [step]}
    assert_empty(server.request("POST", f"{API}/executor/{executor}/tasks/{task['id']}", task))
    step.update(phase="failed", exit_code=3, end_time="2019-07-01T10:00:01Z")
    task["status"].update(phase="failed", steps=[step])
    assert_empty(server.request("POST", f"{API}/executor/ignored/tasks/ignored", task))
    while (now := server.request("GET", f"{API}/runs/{run['id']}").json()["run"])["result"] == "unknown":
        server.service.wait_change(server.service.find_run(run["id"]), 0.05)
    assert now["result"] == "failed"
    assert now["tasks"][task["id"]]["steps"][0]["start_time"].startswith("2019-07-01T10:00:00.123456")


@pytest.mark.parametrize("change", [{"id": "none"}, {"run_id": "none"}, {"status": {"phase": "dancing"}}])
def test_a_status_of_no_task_is_a_bad_request(server, executor, create_run, change):
    _, task = scheduled(server, executor, create_run)
    answer = server.request("POST", f"{API}/executor/{executor}/tasks/{task['id']}", {**task, **change})
    assert (answer.status, isinstance(answer.message, str)) == (400, True)


def test_a_status_that_is_null_is_a_bad_request(server):
    assert server.request("POST", f"{API}/executor/e/tasks/t", b"null").status == 400


def tar(content):
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            info = tarfile.TarInfo("file")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        return buffer.getvalue()


def test_archives(server):
    data = tar(b"saved")
    server.datamanager.storage.write("workspacearchives/task-1/data/2.tar", data)
    answer = server.request("GET", f"{API}/executor/archives?taskid=task-1&step=2")
    assert (answer.status, answer.body, answer.headers["cache-control"]) == (200, data, "no-cache")
    for query, status in (
        ("taskid=task-1&step=3", 404),
        ("taskid=none&step=2", 404),
        ("taskid=task-1", 400),
        ("step=1", 400),
        ("taskid=task-1&step=x", 400),
        ("taskid=task-1&step=-1", 400),
        ("taskid=../../etc&step=1", 400),
    ):
        answer = server.request("GET", f"{API}/executor/archives?{query}")
        assert answer.status == status, query
        assert status == 400 or answer.message == "does not exist"
    posted = {"id": "archives", "listenURL": ""}
    assert_empty(server.request("POST", f"{API}/executor/archives", posted))  # an executor of that name, as in Agola


def test_a_cache_is_stored_once_and_found_by_key_and_prefix(server):
    path = f"{API}/executor/caches/p1-deps%25-"
    assert_empty(server.request("POST", f"{path}1", b"first"))
    again = server.request("POST", f"{path}1", b"second")
    assert (again.status, again.body) == (304, b"")
    (written,) = Path(server.datamanager.storage.root).glob("**/p1-deps*.tar")
    os.utime(written, (0, 0))  # two files of one tick of the file system's clock are equally new
    assert_empty(server.request("POST", f"{path}0", b"newest"))
    assert server.request("HEAD", f"{path}1").status == 200
    assert server.request("HEAD", path).status == 404
    assert server.request("HEAD", f"{path}?prefix=false").status == 200
    got = server.request("GET", f"{path}1")
    assert (got.body, got.headers["cache-control"]) == (b"first", "no-cache")
    assert server.request("GET", path).status == 404
    assert server.request("GET", f"{path}?prefix").body == b"newest"


def test_a_cache_is_stored_from_chunks_too(server):
    with server.connect() as wire:
        head = f"POST {API}/executor/caches/chunked HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        wire.send(head + "5\r\nabcde\r\n3\r\nfgh\r\n0\r\n\r\n")
        assert_empty(wire.response())
        assert wire.request("GET", f"{API}/executor/caches/chunked").body == b"abcdefgh"


def test_a_cache_that_breaks_off_is_never_visible(server):
    with server.connect() as wire:
        wire.send(f"POST {API}/executor/caches/broken HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nabc")
    assert server.request("HEAD", f"{API}/executor/caches/broken").status == 404
    assert server.request("HEAD", f"{API}/executor/caches/broken?prefix").status == 404


@pytest.mark.parametrize(
    ("key", "status", "message"),
    [
        ("k" * 201, 400, "cache key too long"),
        ("%C3%BC" * 101, 400, "cache key too long"),
        ("a%2Fb", 400, "unknown path"),
        ("a%00b", 400, None),
    ],
)
def test_keys_that_no_cache_has(server, key, status, message):
    for method in ("GET", "POST", "HEAD"):
        answer = server.request(method, f"{API}/executor/caches/{key}", b"" if method == "POST" else None)
        assert answer.status == status
        if method != "HEAD" and message:
            assert answer.message == message


def test_a_source_archive_is_stored_by_clients_and_read_by_executors(server):
    stored = server.request("POST", f"{API}/sources", b"a tree")
    assert stored.status == 201
    path = f"{API}/executor/sources/{stored.json()['id']}"
    assert server.request("GET", path).body == b"a tree"
    assert server.request("GET", f"{API}/executor/sources/none").status == 404
    assert json.loads(server.request("POST", f"{API}/sources", b"a tree").body) == stored.json()
