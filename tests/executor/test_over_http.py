"""An executor as its own process: tasks, workspaces, caches, logs and stops over HTTP."""

import re
import signal

import httpx2
import pytest

API = "/api/v1alpha"


def test_tasks_run_and_their_logs_are_kept(running, make_task):
    run_id = running.create(make_task("a", "echo out; echo err >&2", "echo two"), make_task("b", "pwd", depends=["a"]))
    run = running.finished(run_id)
    assert run["result"] == "success"
    assert running.log(run_id, "a") == "out\nerr\n"
    assert running.log(run_id, "a", 1) == "two\n"
    assert running.log(run_id, "b").endswith("/home/project\n")


def test_a_failed_step_fails_its_task_and_its_code_is_kept(running, make_task):
    run = running.finished(running.create(make_task("a", "exit 3", "echo never")))
    assert run["result"] == "failed"
    assert run["tasks"]["a"]["steps"][0]["exit_code"] == 3
    assert run["tasks"]["a"]["steps"][1]["phase"] == "notstarted"


def test_workspaces_pass_from_task_to_task(running, make_task):
    save = {"type": "save_to_workspace", "contents": [{"source_dir": "out", "dest_dir": "d", "paths": ["**"]}]}
    restore = {"type": "restore_workspace", "dest_dir": "."}
    run_id = running.create(
        make_task("a", "mkdir out; echo built >out/f; chmod 700 out/f", save),
        make_task("b", restore, "cat d/f; stat -c %a d/f", depends=["a"]),
    )
    assert running.finished(run_id)["result"] == "success"
    assert running.log(run_id, "b", 1) == "built\n700\n"


def test_caches_are_kept_for_their_group_alone(running, make_task):
    save = {"type": "save_cache", "key": 'k-{{ md5sum "lock" }}', "contents": [{"source_dir": "c"}]}
    restore = {"type": "restore_cache", "keys": ["none-", "k-"], "dest_dir": "c"}
    first = make_task("a", "echo 1 >lock; mkdir c; echo cached >c/f", save, save)
    run_id = running.create(first, group="/project/p1")
    assert running.finished(run_id)["result"] == "success"
    assert "exists already" in running.log(run_id, "a", 2)
    for group, expected in (("/project/p1", "cached\n"), ("/project/p2", "nothing\n")):
        name = group.replace("/", "-")
        run_id = running.create(make_task(name, restore, "cat c/f 2>/dev/null || echo nothing"), group=group)
        assert running.finished(run_id)["result"] == "success"
        assert running.log(run_id, name, 1) == expected


def test_a_log_is_followed_while_its_step_runs(running, make_task, tmp_path):
    gate = tmp_path / "gate"
    run_id = running.create(make_task("a", f"echo begun; while [ ! -e {gate} ]; do sleep 0.02; done; echo ended"))
    params = {"runid": run_id, "taskid": "a", "step": "0", "follow": ""}
    with running.client.stream("GET", f"{API}/logs", params=params) as stream:
        pieces = stream.iter_bytes()
        assert next(pieces) == b"begun\n"
        gate.touch()
        assert b"".join(pieces) == b"ended\n"


def test_a_stopped_run_stops_its_steps(running, make_task, tmp_path):
    mark = tmp_path / "mark"
    run_id = running.create(make_task("a", f"touch {mark}; sleep 1000", "echo never"))
    while not mark.exists():
        running.run(run_id)
    answer = running.client.put(f"{API}/runs/{run_id}/actions", json={"action_type": "stop"})
    assert answer.status_code == 200
    run = running.finished(run_id)
    assert run["result"] == "stopped"
    assert run["tasks"]["a"]["status"] == "stopped"


def test_a_task_over_the_limit_waits(installation, make_task):
    installation.start_service()
    installation.start_executor("--tasks", "1", "--stop-tasks")
    busy = "mkdir $D/busy; sleep 0.1; rmdir $D/busy"
    tasks = [make_task(name, busy, environment={"D": str(installation.root)}) for name in "abc"]
    assert installation.finished(installation.create(*tasks))["result"] == "success"


def test_a_log_that_grows_too_large_fails_its_task(installation, make_task):
    installation.start_service()
    installation.start_executor("--max-log-bytes", "100000", "--stop-tasks")
    run_id = installation.create(make_task("a", "yes", "echo never"))
    run = installation.finished(run_id)
    assert run["result"] == "failed"
    assert "the log of step 0 is larger than 100000 bytes" in run["tasks"]["a"]["reason"]
    assert installation.log(run_id, "a") == "y\n" * 50_000  # what is below the limit is kept
    assert installation.executor.alive
    assert installation.finished(installation.create(make_task("b", "true")))["result"] == "success"


def test_tokens_are_asked_for_both_ways(installation, make_task):
    installation.start_service()
    installation.start_executor("--listen-token", "right-one", "--stop-tasks")
    assert installation.finished(installation.create(make_task("a", "true")))["result"] == "success"
    url = installation.executor.line.split()[-1]
    with httpx2.Client(base_url=url, trust_env=False) as client:
        for headers in ({}, {"Authorization": "Bearer wrong-one"}):
            assert client.get(f"{API}/executor/logs?taskid=a&setup", headers=headers).status_code == 401
            assert client.post(f"{API}/executor", content=b"{}", headers=headers).status_code == 401
        right = {"Authorization": "Bearer right-one"}
        assert client.get(f"{API}/executor/logs?taskid=nothing&setup", headers=right).status_code == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("logs?taskid=a", 400),
        ("logs?setup", 400),
        ("logs?taskid=a&step=-1", 400),
        ("logs?taskid=a&step=99999999999999999999", 400),
        ("logs?taskid=../..&setup", 400),
        ("logs?taskid=nothing&step=0", 404),
        ("archives?taskid=nothing&step=0", 404),
        ("archives?taskid=nothing&step=x", 400),
    ],
)
def test_bad_questions_to_an_executor(installation, path, status):
    installation.start_executor("--no-listen-token")
    url = installation.executor.line.split()[-1]
    answer = httpx2.get(f"{url}{API}/executor/{path}", trust_env=False)
    assert answer.status_code == status
    assert answer.text.strip()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"id": 7}',
        b'{"id":"../x","status":{"phase":"notstarted"}}',
        b'{"id":"x","steps":[null],"status":{"phase":"notstarted"}}',
    ],
)
def test_bad_tasks_are_refused_and_the_executor_lives(installation, body):
    installation.start_executor("--no-listen-token")
    url = installation.executor.line.split()[-1]
    assert httpx2.post(f"{url}{API}/executor", content=body, trust_env=False).status_code == 400
    foreign = {"Origin": "http://elsewhere.example"}  # what a page of another site would send through a browser
    assert httpx2.post(f"{url}{API}/executor", content=body, headers=foreign, trust_env=False).status_code == 403
    assert httpx2.get(f"{url}/healthz", trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--host", "0.0.0.0", "--no-listen-token"], 2, "listens on loopback only"),
        (["--host", "0.0.0.0"], 2, "by which URL"),
        (["--host", "0.0.0.0", "--listen-token", "t"], 2, "by which URL"),
        (["--listen-token", "short"], 2, "at least 8"),
        (["--label", "x"], 2, "expected NAME=VALUE"),
        (["--listen-url", "ftp://x"], 2, "is not a URL"),
    ],
)
def test_what_is_not_safe_is_refused(installation, options, code, message):
    status, errors = installation.start_executor(*options).end()
    assert status == code
    assert message in errors
    assert "Traceback" not in errors


def test_the_times_of_lines_are_the_same_live_and_stored(running, make_task, tmp_path):
    gates = [tmp_path / "one", tmp_path / "two"]
    waits = "".join(f"while [ ! -e {gate} ]; do sleep 0.02; done; echo {gate.name};" for gate in gates)
    run_id = running.create(make_task("a", f"echo zero; {waits} printf end"))
    params = {"runid": run_id, "taskid": "a", "step": "0", "timestamps": ""}
    seen = []
    with running.client.stream("GET", f"{API}/logs", params={**params, "follow": ""}) as stream:
        lines = stream.iter_lines()
        for gate in gates:
            seen.append(next(lines))
            last = running.client.get(f"{API}/logs", params={**params, "tail": "1"})
            assert (last.text, last.headers["agola-offset"]) == (
                f"{seen[-1]}\n",
                str(sum(len(s) - 24 for s in seen[:-1])),
            )
            since = running.client.get(f"{API}/logs", params={**params, "since": seen[-1].split()[0]})
            assert since.text.splitlines()[-1] == seen[-1]
            gate.touch()
        seen += list(lines)
    assert [line[25:] for line in seen] == ["zero", "one", "two", "end"]
    assert running.finished(run_id)["result"] == "success"
    stored = running.client.get(f"{API}/logs", params=params).text.splitlines()
    assert [line[25:] for line in stored] == ["zero", "one", "two", "end"]
    times = [line[:24] for line in stored]
    assert times[:2] == [line[:24] for line in seen[:2]]  # recorded while they were read
    assert times == sorted(times)
    assert times[0] < times[1] < times[2]
    setup = running.client.get(f"{API}/logs", params={"runid": run_id, "taskid": "a", "setup": "", "timestamps": ""})
    assert setup.text[:24] <= times[0]


def test_a_broken_fetch_goes_on_where_it_was(running, make_task, tmp_path):
    from agola_http.executor.executor_client import HttpExecutorClient

    gate = tmp_path / "gate"
    run_id = running.create(make_task("a", f"echo 0123456789; while [ ! -e {gate} ]; do sleep 0.02; done"))
    params = {"runid": run_id, "taskid": "a", "step": "0", "follow": ""}
    with running.client.stream("GET", f"{API}/logs", params=params) as stream:
        next(stream.iter_bytes())
        token = (running.root / "executor/token").read_text()
        client = HttpExecutorClient(running.executor.line.split()[-1], token)
        assert b"".join(client.open_log("a", 0, follow=False, offset=4)) == b"456789\n"
        assert b"".join(client.open_log("a", 0, follow=False, offset=99)) == b""
        client.close()
        gate.touch()


def test_two_executors_do_not_share_a_directory(installation):
    first = installation.start_executor("--no-listen-token")
    second = installation.start_executor("--no-listen-token")
    status, errors = second.end()
    installation.executor = first
    assert status == 4
    assert "in use" in errors


def test_the_id_is_kept(installation):
    first = installation.start_executor("--no-listen-token")
    assert first.stop()[0] == 0  # there is no service, which it says
    second = installation.start_executor("--no-listen-token")
    assert re.match(r"executor \S+ listens on http://127.0.0.1:\d+$", second.line)
    assert first.line.split()[1] == second.line.split()[1]
    assert second.stop(signal.SIGINT)[0] == 0


def test_what_has_ended_says_its_length(installation):
    """Agola's run service stores an empty object for a log or an archive that comes without one."""
    installation.start_executor("--no-listen-token")
    url = installation.executor.line.split()[-1]
    steps = [
        {"type": "run", "name": "one", "command": "echo hello; echo out > out"},
        {"type": "save_to_workspace", "name": "two", "contents": [{"source_dir": ".", "paths": ["**"]}]},
        {"type": "run", "name": "three", "command": "true"},
    ]
    status = {"executor_id": "", "phase": "notstarted", "steps": [{"phase": "notstarted"} for _ in steps]}
    task = {"id": "t", "run_id": "r", "task_name": "t", "steps": steps, "status": status, "environment": {}}
    with httpx2.Client(base_url=f"{url}{API}", trust_env=False, timeout=30) as client:
        assert client.post("/executor", json=task).status_code == 200
        for step in range(3):  # to its end
            assert client.get("/executor/logs", params={"taskid": "t", "step": step, "follow": ""}).status_code == 200
        for path, params, begin in (
            ("logs", {"step": 0}, b"hello"),
            ("logs", {"step": 2}, b""),
            ("logs", {"setup": ""}, b"executor starts"),
            ("archives", {"step": 1}, b"."),
        ):
            answer = client.get(f"/executor/{path}", params={"taskid": "t", **params})
            assert answer.headers["content-length"] == str(len(answer.content))
            assert answer.content.startswith(begin)
            rest = client.get(f"/executor/{path}", params={"taskid": "t", "offset": 3, **params})
            assert rest.content == answer.content[3:]
