"""What executors that hang, drip or never end do to the service that asks them."""

import contextlib
import ipaddress
import socket
import threading
import time
import zlib

import pytest

from agola_core.errors import BadRequestError, ForbiddenError, UnavailableError
from agola_core.runservice.model.types import ExecutorTask
from agola_core.runtime.context import Context
from agola_http.access.control import Tokens
from agola_http.executor import executor_client
from agola_http.executor.executor_client import HttpExecutorClient, HttpExecutorDirectory
from agola_http.outbound.listen_policy import ListenPolicy
from agola_http.outbound.waiting import waiting_for
from agola_http.server.endpoints import Call

API = "/api/v1alpha"
OK = b"HTTP/1.1 200 OK\r\n"


class Peer:
    """A socket that answers every request with the same pieces, and then again and again with the last of them."""

    def __init__(self, *pieces, endless=False):
        self.pieces = pieces
        self.endless = endless
        self.heads = []
        self.asked = threading.Semaphore(0)
        self.ended = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self.answer, args=(connection,)))
            self.threads[-1].start()

    def answer(self, connection):
        with connection, contextlib.suppress(OSError):
            self.heads.append(connection.recv(65536).decode().lower())
            self.asked.release()
            for piece in self.pieces:
                connection.sendall(piece)
            while self.endless and not self.ended.wait(0.02):
                connection.sendall(self.pieces[-1])
            self.ended.wait()

    def close(self):
        self.ended.set()
        if self.listener.fileno() >= 0:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
        for thread in self.threads:
            thread.join()


@pytest.fixture
def peer():
    """Return a function that makes peers."""
    made = []

    def make(*pieces, **how):
        made.append(Peer(*pieces, **how))
        return made[-1]

    yield make
    for item in made:
        item.close()


@pytest.fixture
def ask(monkeypatch):
    """Return a function that makes a client of a peer; its deadlines are a third of a second."""
    monkeypatch.setattr(executor_client, "_SECONDS", 0.3)
    with contextlib.ExitStack() as stack:
        yield lambda peer: stack.enter_context(contextlib.closing(HttpExecutorClient(peer.url)))


def assert_ended(call):
    """A call ends with the error of a peer that does not answer as it should; one that never ends fails the test."""
    found = []

    def work():
        try:
            found.append(call())
        except UnavailableError as error:
            found.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert found, "it waits without end"
    assert isinstance(found[0], UnavailableError), found
    return str(found[0])


DRIPPING_HEAD = (b"HTTP/1.1 200 OK\r\nX: ", b"x")
DRIPPING_CHUNK = (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0")
DRIPPING_ERROR = (b"HTTP/1.1 500 No\r\nContent-Length: 100000\r\n\r\n", b"x")


@pytest.mark.parametrize("pieces", [(), DRIPPING_HEAD, DRIPPING_CHUNK, DRIPPING_ERROR])
def test_an_executor_that_drips_ends_a_submission(peer, ask, pieces):
    client = ask(peer(*pieces, endless=bool(pieces)))
    assert_ended(lambda: client.submit(ExecutorTask(id="t")))


@pytest.mark.parametrize("pieces", [(), DRIPPING_HEAD, DRIPPING_CHUNK, DRIPPING_ERROR])
def test_an_executor_that_drips_ends_a_fetch(peer, ask, pieces):
    client = ask(peer(*pieces, endless=bool(pieces)))
    assert_ended(lambda: list(client.open_log("t", 0, follow=False)))


@pytest.mark.parametrize("pieces", [(), (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n")])
def test_a_followed_log_of_an_executor_that_hangs_ends_when_nobody_waits(peer, ask, pieces):
    hanging = peer(*pieces)  # silence is no error here: the step may be quiet for hours
    client, context = ask(hanging), Context()

    def follow():
        with waiting_for(context):
            return b"".join(client.open_log("t", 0, follow=True))

    thread = threading.Thread(target=hanging.asked.acquire)
    thread.start()
    canceller = threading.Thread(target=lambda: (thread.join(), context.cancel()))
    canceller.start()
    assert_ended(follow)
    canceller.join()


def test_an_executor_that_does_not_read_ends_a_submission(monkeypatch):
    monkeypatch.setattr(executor_client, "_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # the kernel takes the connection, nobody reads
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with contextlib.closing(HttpExecutorClient(url)) as client:
            task = ExecutorTask(id="t", environment={"LARGE": "x" * (32 << 20)})
            assert_ended(lambda: client.submit(task))


def test_an_answer_to_a_submission_has_a_size(peer, ask):
    client = ask(peer(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n", endless=True))
    assert "answers more than 65536 bytes" in assert_ended(lambda: client.submit(ExecutorTask(id="t")))


def test_compressed_answers_are_neither_asked_for_nor_unpacked(peer, ask):
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = bomb.compress(b"\0" * (64 << 20)) + bomb.flush()
    head = f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    hostile = peer(OK + head + packed)
    client = ask(hostile)
    assert "'gzip'" in assert_ended(lambda: client.submit(ExecutorTask(id="t")))
    assert "'gzip'" in assert_ended(lambda: list(client.open_log("t", 0, follow=False)))
    refusing = peer(b"HTTP/1.1 400 No\r\n" + head + packed)
    client = ask(refusing)
    with pytest.raises(BadRequestError) as caught:
        list(client.open_log("t", 0, follow=False))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 10_000
    for sent in hostile.heads + refusing.heads:
        assert "accept-encoding: identity" in sent


def test_a_host_that_is_not_resolved_in_time_is_an_error(monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(executor_client, "_RESOLVE_SECONDS", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ended.wait() and [])
    try:
        with pytest.raises(UnavailableError, match="not resolved in time"):
            HttpExecutorClient("http://slow.example:4001")
    finally:
        ended.set()


# The service beside such an executor


def running_task(server, url):
    """Make an executor at an address known, and give it a task that is said to run."""
    report = {"id": "hostile", "listenURL": url}
    assert server.request("POST", f"{API}/executor/hostile", report).status == 200
    step = {"type": "run", "name": "one", "command": "true"}
    task = {"id": "hung", "name": "only", "depends": {}, "steps": [step], "runtime": {"type": "pod"}}
    body = {"name": "r", "group": "/project/hung", "run_config_tasks": {"hung": task}}
    run = server.request("POST", f"{API}/runs", body).json()["run"]
    while not (tasks := server.request("GET", f"{API}/executor/hostile/tasks").json()):
        server.service.wait_change(server.service.find_run(run["id"]), 0.05)
    return run["id"], tasks[0]


def test_a_task_is_told_to_the_executor_that_holds_it_alone(server, peer):
    run, task = running_task(server, peer(OK).url)
    for other in ("nobody", "%2A", run):
        assert server.request("GET", f"{API}/executor/{other}/tasks/{task['id']}").status == 404
    assert server.request("GET", f"{API}/executor/hostile/tasks/{task['id']}").json()["id"] == task["id"]


def test_a_hanging_executor_takes_no_thread_from_health_and_status(start_server, peer, monkeypatch):
    monkeypatch.setattr(executor_client, "_SECONDS", 600.0)  # far beyond what is waited for here
    hanging = peer()
    with contextlib.closing(HttpExecutorDirectory()) as directory, start_server(remote=directory) as server:
        run_id, task = running_task(server, hanging.url)
        readers = [server.connect() for _ in range(40)]
        wires = [reader.__enter__() for reader in readers]
        try:
            path = f"{API}/logs?runid={run_id}&taskid={task['id']}&step=0"
            for wire in wires:
                wire.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            for _ in wires:  # all of them wait for the executor
                assert hanging.asked.acquire(timeout=30)
            with server.connect() as wire:
                for path in ("/healthz", f"{API}/status", f"{API}/runs", f"{API}/executors"):
                    assert wire.request("GET", path).status == 200
            hanging.close()  # they need not wait for their deadlines
            for wire in wires:
                assert wire.response().status == 503
        finally:
            for reader in readers:
                reader.__exit__(None, None, None)


def test_readers_who_leave_a_hanging_executor_keep_no_places(start_server, peer):
    hanging = peer()
    with contextlib.closing(HttpExecutorDirectory()) as directory, start_server(remote=directory) as server:
        run_id, task = running_task(server, hanging.url)
        path = f"{API}/logs?runid={run_id}&taskid={task['id']}&step=0&follow"
        for _ in range(3):
            with server.connect() as wire:
                wire.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert hanging.asked.acquire(timeout=30)
        deadline = time.monotonic() + 30
        while server.app.open_streams:
            assert time.monotonic() < deadline, "the places are lost"
            time.sleep(0.02)
        hanging.close()  # the service that ends need not wait for its deadline


# Whose token is shown to whom


SHARED = ["Authorization: Bearer executor-canary-2"]
OWN = {"honest": "honest-canary-4", "hostile": "hostile-canary-5"}


def report(server, executor_id, url, token, headers=SHARED):
    body = {"id": executor_id, "listenURL": url, "listen_token": token, "active_tasks_limit": 1}
    return server.request("POST", f"{API}/executor/{executor_id}", body, headers)


@pytest.fixture
def shared(start_server):
    """A server whose executors share a token, as they are told to."""
    tokens = Tokens(["client-canary-1"], ["executor-canary-2", "bound=bound-canary-6"], ["admin-canary-3"])
    with contextlib.closing(HttpExecutorDirectory()) as directory, start_server(tokens, remote=directory) as running:
        yield running


def test_an_executor_is_shown_its_own_token_alone(shared, peer):
    answer = OK + b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    places = {"honest": peer(answer), "hostile": peer(answer)}
    for executor_id, place in places.items():
        assert report(shared, executor_id, place.url, OWN[executor_id]).status == 200
    step = {"type": "run", "name": "one", "command": "true"}
    for number in range(2):
        name = f"t{number}"
        task = {"id": name, "name": "only", "depends": {}, "steps": [step], "runtime": {"type": "pod"}}
        body = {"name": "r", "group": f"/project/{name}", "run_config_tasks": {name: task}}
        made = shared.request("POST", f"{API}/runs", body, ["Authorization: Bearer client-canary-1"])
        assert made.status == 201
    for place in places.values():
        assert place.asked.acquire(timeout=30)
    for executor_id, place in places.items():
        (other,) = OWN.keys() - {executor_id}
        for head in place.heads:
            assert f"authorization: bearer {OWN[executor_id]}" in head
            assert OWN[other] not in head
            assert "executor-canary-2" not in head


def test_an_executors_id_is_bound_to_the_token_of_its_first_report(shared):
    url = "http://127.0.0.1:1"
    assert report(shared, "honest", url, OWN["honest"]).status == 200
    for token in (OWN["hostile"], ""):
        answer = report(shared, "honest", "http://127.0.0.1:2", token)
        assert (answer.status, "is bound to another token" in answer.message) == (403, True)
    own = [*SHARED, f"Agola-Executor-Token: {OWN['honest']}"]
    wrong = [*SHARED, f"Agola-Executor-Token: {OWN['hostile']}"]
    task = {"id": "t", "run_id": "r", "status": {"executor_id": "honest"}}
    for method, path, body in (
        ("GET", "honest/tasks", None),
        ("GET", "honest/tasks/t", None),
        ("POST", "honest/tasks/t", task),
        ("DELETE", "honest", None),
    ):
        for headers in (SHARED, wrong):
            assert shared.request(method, f"{API}/executor/{path}", body, headers).status == 403, path
        assert shared.request(method, f"{API}/executor/{path}", body, own).status in {200, 400, 404}, path
    assert report(shared, "honest", url, OWN["hostile"]).status == 200  # it was forgotten


def test_whoever_proves_an_id_by_a_token_that_was_given_for_it_may_bind_it_anew(shared):
    bound = ["Authorization: Bearer bound-canary-6"]
    for token in (OWN["honest"], OWN["hostile"]):
        assert report(shared, "bound", "http://127.0.0.1:1", token, bound).status == 200
    assert report(shared, "bound", "http://127.0.0.1:1", OWN["honest"]).status == 403
    assert shared.request("GET", f"{API}/executor/bound/tasks", headers=bound).status == 200


def test_an_executor_without_a_token_registers_as_agolas_does(shared):
    assert report(shared, "agola", "http://127.0.0.1:1", "").status == 200
    assert report(shared, "agola", "http://127.0.0.1:1", "").status == 200
    assert shared.request("GET", f"{API}/executor/agola/tasks", headers=SHARED).body == b"[]\n"


def test_nobody_is_told_the_tokens_of_executors(shared):
    assert report(shared, "honest", "http://127.0.0.1:1", OWN["honest"]).status == 200
    admin = ["Authorization: Bearer admin-canary-3"]
    for path in (f"{API}/executors", f"{API}/export", f"{API}/export?include=active", "/page/store", "/metrics"):
        answer = shared.request("GET", path, headers=admin)
        assert OWN["honest"].encode() not in answer.body, path
        if path.endswith("executors"):
            assert b'"honest"' in answer.body


@pytest.mark.parametrize("token", ["short", "with space in it", "line\r\nX-Injected: 1", "ünusable-token", "x" * 2000])
def test_a_token_that_no_header_carries_is_refused(shared, token):
    answer = report(shared, "odd", "http://127.0.0.1:1", token)
    assert (answer.status, token in answer.message) == (400, False)


def test_an_executor_elsewhere_does_not_point_the_service_at_itself():
    policy = ListenPolicy()
    for url in ("http://127.0.0.1:4000", "http://localhost:6379", "http://[::1]:9", "http://[::ffff:127.0.0.1]:9"):
        policy.check(url, same_machine=True)
        with pytest.raises(ForbiddenError, match="on other machines"):
            policy.check(url, same_machine=False)
    with pytest.raises(BadRequestError, match="has no path"):
        policy.check("http://127.0.0.1:4000/admin/delete", same_machine=True)
    policy.check("http://10.0.0.7:4001/behind/a/proxy", same_machine=False)
    with pytest.raises(ForbiddenError, match="is a name of this machine"):
        policy.pick(policy.parse("http://rebound.example:80"), [ipaddress.ip_address("127.0.0.1")])
    policy.pick(policy.parse("http://localhost:80"), [ipaddress.ip_address("127.0.0.1")])


def test_where_a_request_comes_from_is_seen_by_its_addresses():
    for client, server, same in (
        ("127.0.0.1", "127.0.0.1", True),
        ("::1", "::1", True),
        ("10.0.0.5", "10.0.0.5", True),
        ("10.0.0.7", "10.0.0.5", False),
    ):
        assert Call({"type": "http", "client": (client, 1), "server": (server, 2)}).same_machine is same
    assert not Call({"type": "http", "client": None, "server": None}).same_machine
