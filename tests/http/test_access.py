"""Who may call what: every endpoint with every kind of caller, and secrets that must show nowhere."""

import logging
import re

import pytest

from agola_core.errors import BadRequestError
from agola_core.runservice.model.types import ExecutorTask, WorkspaceOperation
from agola_http.access.control import Access, Tokens, is_loopback
from agola_http.access.principals import Principal
from agola_http.access.token_files import read_tokens
from agola_http.routes import table
from agola_http.routes.caches import needs_archive
from agola_http.serve import ServeOptions
from agola_http.server.state import State

API = "/api/v1alpha"
SECRETS = {
    "client": "client-canary-1",
    "executor": "executor-canary-2",
    "admin": "admin-canary-3",
    "bound": "bound-canary-4",
    "wrong": "wrong-canary-5",
}
TOKENS = Tokens([SECRETS["client"]], [SECRETS["executor"], f"e1={SECRETS['bound']}"], [SECRETS["admin"]])
ROWS = [row for row in table(State(None), bytes, bytes) if row.documented]
ENDLESS = {f"{API}/runs/events", f"{API}/events", f"{API}/maintenance"}  # and what would stop the server
GRANTED = {
    Principal.PUBLIC: {"none", "wrong", "client", "executor", "bound", "admin"},
    Principal.CLIENT: {"client", "admin"},
    Principal.EXECUTOR: {"executor", "bound"},
    Principal.ADMIN: {"admin"},
}


@pytest.fixture(scope="module")
def guarded(start_server):
    with start_server(TOKENS) as running:
        yield running


def bearer(kind):
    return [f"Authorization: Bearer {SECRETS[kind]}"] if kind in SECRETS else []


def filled(path):
    return re.sub(r"{(\w+)}", "x", path)


@pytest.mark.parametrize("kind", ["none", *SECRETS])
def test_every_endpoint_with_every_kind_of_caller(guarded, kind):
    with guarded.connect() as wire:
        for row in ROWS:
            if row.path in ENDLESS and kind in {"client", "admin"}:
                continue
            body = {"id": "x", "status": {"executor_id": "x"}} if row.method in {"POST", "PUT"} else None
            answer = wire.request(row.method, filled(row.path), body, bearer(kind))
            where = (row.method, row.path, answer.status)
            if kind in GRANTED[row.principal]:
                refused = kind == "bound" and row.path != f"{API}/executor/archives"  # of another executor's tasks
                refused = refused and row.principal is Principal.EXECUTOR
                assert (answer.status == 403) == refused, where
                assert answer.status != 401, where
            else:
                assert answer.status == (401 if kind in {"none", "wrong"} else 403), where
                if row.method != "HEAD":
                    assert SECRETS.get(kind, "?") not in answer.body.decode()
                if answer.status == 401:
                    assert answer.headers["www-authenticate"] == "Bearer"


def test_every_endpoint_refuses_the_methods_that_it_does_not_have(guarded):
    known = {}
    for row in ROWS:
        known.setdefault(filled(row.path), set()).add(row.method)
    with guarded.connect() as wire:
        for path, methods in known.items():
            for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"} - methods:
                others = {other for row in ROWS for other in [row.method] if re.fullmatch(pattern(row.path), path)}
                if method not in others:
                    assert wire.request(method, path, headers=bearer("admin")).status == 405, (method, path)


def pattern(path):
    return re.sub(r"{(\w+)}", "[^/]+", path)


def test_an_executor_speaks_for_itself_alone(guarded):
    def report(kind, path_id, body_id):
        body = {"id": body_id, "listenURL": "http://127.0.0.1:1"}
        return guarded.request("POST", f"{API}/executor/{path_id}", body, bearer(kind)).status

    assert report("bound", "e1", "e1") == 200
    assert report("bound", "e2", "e2") == 403
    assert report("bound", "e1", "e2") == 403
    assert report("executor", "e2", "e2") == 200
    assert report("executor", "e2", "e1") == 403
    assert guarded.request("GET", f"{API}/executor/e2/tasks", headers=bearer("bound")).status == 403
    assert guarded.request("GET", f"{API}/executor/e1/tasks", headers=bearer("bound")).body == b"[]\n"
    assert guarded.request("DELETE", f"{API}/executor/e2", headers=bearer("bound")).status == 403
    task = {"id": "t", "run_id": "r", "status": {"executor_id": "e2"}}
    assert guarded.request("POST", f"{API}/executor/e1/tasks/t", task, bearer("bound")).status == 403


def test_an_executor_gets_what_its_own_tasks_need_alone(guarded):
    source = guarded.service.put_source([b"a tree"])
    guarded.datamanager.storage.write("workspacearchives/above/data/0.tar", b"an archive")
    wanted = (
        ("GET", f"{API}/executor/sources/{source}", 200),
        ("POST", f"{API}/executor/caches/own-key", 200),
        ("GET", f"{API}/executor/caches/own-", 404),
    )

    def ask():
        for method, path, _ in wanted:
            data = b"cached" if method == "POST" else None
            yield guarded.request(method, path, data, bearer("bound")).status

    assert set(ask()) == {403}
    guarded.request("POST", f"{API}/executor/e1", {"id": "e1", "listenURL": "http://127.0.0.1:1"}, bearer("bound"))
    steps = [{"type": "run", "name": "clone", "source": source}]
    tasks = {"own": {"id": "own", "name": "own", "depends": {}, "steps": steps}}
    body = {"name": "r", "group": "/project/own/branch/main", "run_config_tasks": tasks}
    guarded.request("POST", f"{API}/runs", body, bearer("client"))
    while guarded.request("GET", f"{API}/executor/e1/tasks", headers=bearer("bound")).json() == []:
        for run in guarded.service.active_runs():
            guarded.service.wait_change(run, 0.05)
    assert list(ask()) == [status for *_, status in wanted]
    for path in ("caches/other-key", "archives?taskid=above&step=0", "sources/other"):
        assert guarded.request("GET", f"{API}/executor/{path}", headers=bearer("bound")).status == 403
        assert guarded.request("GET", f"{API}/executor/{path}", headers=bearer("executor")).status in {200, 404}


def test_a_task_needs_the_archives_that_it_restores():
    task = ExecutorTask(workspace_operations=[WorkspaceOperation(task_id="above", step=0)])
    assert needs_archive(task, "above", 0)
    assert not needs_archive(task, "above", 1)
    assert not needs_archive(task, "other", 0)


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/", "file:///etc/passwd", "http://8.8.8.8/", "http://user:x@10.0.0.1", "nothing"]
)
def test_an_executor_does_not_make_the_service_call_what_it_should_not(guarded, url):
    answer = guarded.request("POST", f"{API}/executor/e1", {"id": "e1", "listenURL": url}, bearer("bound"))
    assert answer.status in {400, 403}
    assert url not in str([executor.listen_url for executor in guarded.service.executors()])


def test_secrets_show_nowhere(guarded, caplog):
    caplog.set_level(logging.DEBUG)
    seen = []
    paths = [f"{API}/{name}" for name in ("runs", "status", "export", "executors", "maintenance")]
    for kind, secret in SECRETS.items():
        for path in (*paths, "/metrics", "/openapi.json"):
            answer = guarded.request("GET", path, headers=bearer(kind))
            seen.append(repr(answer.headers).encode() + answer.body)
        seen.append(guarded.request("GET", f"{API}/runs", headers=[f"Authorization: Basic {secret}"]).body)
        seen.append(guarded.request("POST", f"{API}/runs", b"{", bearer(kind)).body)
    text = b"".join(seen).decode() + caplog.text + repr(vars(guarded.app)) + repr(vars(TOKENS)) + repr(TOKENS)
    for secret in SECRETS.values():
        assert secret not in text


def test_a_page_of_another_site_is_not_let_in_without_a_token(server):
    path = f"{API}/runs"
    assert server.request("GET", path, headers=["Origin: http://evil.example"]).status == 403
    assert server.request("GET", path, headers=["Origin: null"]).status == 403
    with server.connect() as wire:
        for host, status in (("localhost:1", 200), ("[::1]:1", 200), ("rebound.example", 403)):
            wire.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
            assert wire.response().status == status
            wire.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n\r\n")
            assert wire.response().status == status


def test_other_hosts_are_served_with_tokens_of_every_kind_only():
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org"):
        for tokens in (Tokens(), Tokens([SECRETS["client"]], [SECRETS["executor"]])):
            with pytest.raises(BadRequestError, match="loopback only"):
                ServeOptions(host=host, tokens=tokens).check()
        ServeOptions(host=host, tokens=TOKENS).check()
        ServeOptions(host=host, trust_network=True).check()
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.1.2.3", "::1")))


def test_tokens_come_from_files_and_the_environment(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("# ours\n\nfirst-token\n e9=second-token \n")
    tokens = read_tokens({"executor": path}, {"AGOLA_ADMIN_TOKEN": "third-token"})
    assert tokens.find("first-token").executor_id is None
    assert tokens.find("second-token").executor_id == "e9"
    assert tokens.find("third-token").principal is Principal.ADMIN
    assert tokens.find("e9=second-token") is None
    assert not tokens.has(Principal.CLIENT)
    assert not tokens.complete


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"short\n", b"with spaces inside\n", b"\xff\xfe", None])
def test_token_files_that_are_not_usable(tmp_path, content):
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadRequestError) as caught:
        read_tokens({"client": path}, {})
    assert "with spaces" not in str(caught.value)
    assert "short" not in str(caught.value)


def test_all_tokens_are_compared():
    access = Access(TOKENS)
    assert "canary" not in repr(access.__dict__)
