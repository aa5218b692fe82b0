"""How paths, methods and bodies are read: the rules of Agola's router and of Go's JSON."""

import json

import pytest

API = "/api/v1alpha"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"{API}/nothing", 400),
        ("GET", API, 400),
        ("GET", f"{API}x", 400),
        ("GET", f"{API}/runs/", 400),  # no tolerance of a slash at the end
        ("GET", f"{API}/runs/a%2Fb", 400),  # decoded before it is matched: two segments
        ("GET", f"{API}/executor/caches/a/b", 400),
        ("GET", "/nothing", 404),
        ("GET", "/api/v1/runs", 404),
        ("DELETE", f"{API}/runs", 405),
        ("HEAD", f"{API}/runs", 405),
        ("PATCH", f"{API}/runs/x/actions", 405),
        ("POST", f"{API}/executor/archives/tasks", 405),
        ("GET", f"{API}/runs%0A", 400),
    ],
)
def test_what_is_not_there(server, method, path, status):
    answer = server.request(method, path)
    assert answer.status == status
    if method != "HEAD":
        assert isinstance(answer.message, str)


@pytest.mark.parametrize(
    ("path", "location"),
    [
        (f"{API}//runs?limit=1&x=%2F", f"{API}/runs?limit=1&x=%2F"),
        (f"{API}/./runs", f"{API}/runs"),
        (f"{API}/x/../runs/", f"{API}/runs/"),
        ("//evil.example/%2e%2e", "/"),
        (f"{API}/runs/%2E%2E/a%20b", f"{API}/a%20b"),
    ],
)
def test_paths_are_cleaned_by_a_redirect(server, path, location):
    answer = server.request("GET", path)
    assert (answer.status, answer.headers["location"], answer.body) == (301, location, b"")


def test_escapes_in_paths(server):
    assert server.request("GET", f"{API}/runs/a%25b+c").message == 'run "a%b+c" doesn\'t exist'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "EOF"),
        (b"   ", "EOF"),
        (b"{", None),
        (b"[]", None),
        (b'"x"', None),
        (b"\xff", None),
        (b"[" * 100_000, None),
        (b'{"group": 3}', None),
        (b"null", "run group is empty"),
        (b'{"name":"x"}', "run group is empty"),
        (b'{"group":"x"}', 'run group "x" must be an absolute path'),
        (b'{"group":"/project/x"}', "empty run config tasks and setup errors"),
        (b'{"run_id":"none"}', "doesn't exist"),
    ],
)
def test_bodies_that_make_no_run(server, body, message):
    answer = server.request("POST", f"{API}/runs", body)
    assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
    assert set(answer.json()) == {"message"}
    assert message is None or message in answer.message


def test_bodies_are_read_as_go_reads_them(server):
    task = {
        "ID": "t1",
        "Name": "only",
        "depends": None,
        "environment": None,
        "unknown": {"deeply": ["ignored"]},
        "runtime": {"TYPE": "pod", "containers": [{"image": "i", "privileged": None}]},
        "steps": [{"Type": "run", "NAME": "one", "command": "true"}, {"type": "dance"}, None],
    }
    document = {
        "NAME": "r",
        "Group": "/project/go/branch/main",
        "run_config_tasks": {"t1": task},
        "static_environment": None,
        "changeup_update_tokens": None,
        "annotations": {"a": None, "b": "</&>\u2028"},
    }
    answer = server.request("POST", f"{API}/runs", json.dumps(document).encode() + b' {"a second": "document"}')
    assert answer.status == 201
    assert b"\\u003c/\\u0026\\u003e\\u2028" in answer.body
    made = answer.json()
    assert made["run"]["annotations"] == {"a": "", "b": "</&>\u2028"}
    task = made["run_config"]["tasks"]["t1"]
    assert (task["name"], task["steps"][0]["name"], task["steps"][1:]) == ("only", "one", [None, None])
    assert task["runtime"]["containers"][0] == {"image": "i", "privileged": False, "entrypoint": ""}
    assert {"depends", "docker_registries_auth"} <= set(task)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=0", 200),
        ("limit=%2B3", 200),
        ("limit=", 400),
        ("limit=x", 400),
        ("limit=-1", 400),
        ("limit=1_0", 400),
        ("limit=%D9%A3", 400),
        ("limit=99999999999999999999999", 400),
        ("phase=dancing", 200),
        ("asc=false&lastrun", 200),
        ("start=%00", 200),
        ("unknown=1", 200),
    ],
)
def test_parameters_of_lists(server, query, status):
    answer = server.request("GET", f"{API}/runs?{query}")
    assert answer.status == status
    if status == 200 and ("limit=0" in query or "dancing" in query):
        assert answer.json()["runs"] == []


def test_flags_count_by_their_presence_and_limits_are_capped(server, create_run):
    ids = [create_run(group="/project/flags/branch/main")["id"] for _ in range(42)]
    listed = server.request("GET", f"{API}/runs?group=/project/flags&asc=false&limit=1000").json()["runs"]
    assert [run["id"] for run in listed] == ids[:40]
    listed = server.request("GET", f"{API}/runs?group=/project/flags&start={ids[5]}").json()["runs"]
    assert [run["id"] for run in listed] == ids[4::-1]
    assert len(server.request("GET", f"{API}/runs?group=/project/flags").json()["runs"]) == 25
    assert server.request("GET", f"{API}/runs?group=/project/flag").json()["runs"] == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("runid=a&taskid=b", 400),
        ("runid=a&taskid=b&step=0&setup", 400),
        ("runid=a&taskid=b&step=-1", 400),
        ("runid=a&taskid=b&step=x", 400),
        ("runid=&taskid=b&step=0", 400),
        ("runid=a&taskid=b&step=0&tail=-1", 400),
        ("runid=a&taskid=b&step=0&tail=", 400),
        ("runid=a&taskid=b&step=0&offset=-1", 400),
        ("runid=a&taskid=b&step=0&since=yesterday", 400),
        ("runid=a&taskid=b&step=0&since=2026-01-31T12:00", 400),
        ("runid=a&taskid=b&step=0&since=2026-01-31T12:00Z&tail=1", 404),
        ("runid=a&taskid=b&step=0", 404),
        ("runid=a&taskid=b&setup&follow", 404),
    ],
)
def test_logs_that_are_not_there(server, query, status):
    assert server.request("GET", f"{API}/logs?{query}").status == status


def test_a_connection_is_kept_and_empty_answers_have_a_length(server, create_run):
    first = create_run(group="/project/kept/branch/main", task_id="kept")["id"]
    queued = create_run(group="/project/kept/branch/main")["id"]
    with server.connect() as wire:
        for _ in range(3):
            assert wire.request("GET", f"{API}/runs/{first}").status == 200
        for body in ({"action_type": "changephase", "phase": "cancelled"},):
            answer = wire.request("PUT", f"{API}/runs/{queued}/actions", body)
            assert (answer.status, answer.headers["content-length"], answer.body) == (200, "0", b"")
        bad = wire.request("PUT", f"{API}/runs/{first}/actions", {"action_type": "dance"})
        assert bad.status == 400
        answer = wire.request(
            "PUT",
            f"{API}/runs/{first}/tasks/kept/actions",
            {"action_type": "setannotations", "annotations": {"a": "b"}},
        )
        assert (answer.status, answer.headers["content-length"]) == (200, "0")
        for task, message in (("none", "doesn't have task"), ("kept", "is not in waiting approval state")):
            answer = wire.request("PUT", f"{API}/runs/{first}/tasks/{task}/actions", {"action_type": "approve"})
            assert answer.status == 400
            assert message in answer.message


def test_tokens_of_change_groups(server, create_run):
    run = create_run(group="/project/tokens/branch/main", task_id="guarded")["id"]
    token = server.request("GET", f"{API}/changegroups?changegroup=g1&changegroup=g2").json()
    assert isinstance(token, str)
    body = {"action_type": "setannotations", "annotations": {"a": "1"}, "change_groups_update_tokens": token}
    path = f"{API}/runs/{run}/tasks/guarded/actions"
    assert server.request("PUT", path, body).status == 200
    again = server.request("PUT", path, {**body, "annotations": {"a": "2"}})
    assert again.status == 409
    assert again.message
    assert server.request("PUT", path, {**body, "change_groups_update_tokens": "nonsense!"}).status in {400, 409}
    assert server.request("GET", f"{API}/changegroups").json()
    assert server.request("GET", f"{API}/runs/{run}?changegroup=g1").json()["change_groups_update_tokens"]


def test_bytes_of_a_path_that_are_no_text_are_refused(server):
    """Two of them would be one and the same key otherwise."""
    for path in (f"{API}/executor/caches/a%ff", f"{API}/executor/caches/a%fe", "/%c3%28"):
        answer = server.request("GET", path)
        assert (answer.status, answer.message) == (400, "the path is not valid UTF-8")
