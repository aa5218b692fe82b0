"""Attacks on a running server, each as an attacker plays it."""

import threading
from xml.etree import ElementTree

import httpx2
import pytest
from starlette.datastructures import Headers
from starlette.responses import Response

from agola_core.errors import UnauthorizedError
from agola_http.access import sessions
from agola_http.access.control import Access, Tokens
from agola_http.access.principals import Principal
from agola_http.executor.app import make_executor_app
from agola_http.protocol.names import PREFIX
from agola_http.server.application import Application
from agola_http.server.connections.limits import Limits
from agola_http.server.connections.uvicorn_server import Tls
from agola_http.server.endpoints import Endpoint, StreamedResponse

API = "/api/v1alpha"
LIMITS = Limits()
TOKENS = Tokens(["client-canary-1"], ["executor-canary-2"], ["admin-canary-3"])
CLIENT = ["Authorization: Bearer client-canary-1"]
EXECUTOR = ["Authorization: Bearer executor-canary-2"]


def assert_safe(answer):
    headers = answer.headers
    assert headers["x-content-type-options"] == "nosniff", answer.status
    assert headers["content-security-policy"].startswith("default-src 'none'"), answer.status
    assert "content-type" in headers or answer.status in {301, 303} or not answer.body


# A stored script


def test_a_runs_name_is_no_attribute_of_the_badge(server, create_run):
    name = """x" onload="fetch('/api/v1alpha/runs')" <script>&"""
    create_run(name=name, group="/project/badge", task_id="badge")
    picture = server.request("GET", "/badge.svg?group=/project/badge")
    root = ElementTree.fromstring(picture.body)
    assert root.attrib["aria-label"].startswith(name)
    assert not [item for item in root.iter() if "onload" in item.attrib or item.tag.endswith("script")]
    assert_safe(picture)


def test_every_answer_of_the_server_forbids_scripts_and_guesses(server, create_run):
    run = create_run(group="/project/safe", task_id="safe")
    for path, status in (
        (f"{API}/runs", 200),
        (f"{API}/runs/{run['id']}", 200),
        (f"{API}/runs/none", 404),
        (f"{API}/nothing", 400),
        (f"{API}/export", 200),
        ("/", 200),
        ("//", 301),
        ("/page/login", 200),
        ("/page/static/page.js", 200),
        ("/nothing", 404),
        ("/healthz", 200),
        ("/metrics", 200),
        ("/openapi.json", 200),
    ):
        answer = server.request("GET", path)
        assert answer.status == status, path
        assert_safe(answer)
    with server.connect() as wire:
        wire.send("no request\r\n\r\n")
        assert_safe(wire.response())


def test_too_many_connections_are_answered_as_safely(start_server):
    with start_server(limits=Limits(connections=1)) as server, server.connect() as wire, server.connect() as other:
        answers = [wire.request("GET", "/healthz"), other.request("GET", "/healthz")]
        assert {answer.status for answer in answers} == {503}
        for answer in answers:
            assert_safe(answer)


class Executor:
    """What an executor's interface serves: a log that says it is a page."""

    def open_log(self, task_id, step, *, follow, offset=0):
        return iter([b"<html><script>1</script>"])

    def open_times(self, task_id, step, *, offset=0):
        return iter([b"<html><script>1</script>"])

    def open_archive(self, task_id, step, *, offset=0):
        return iter([b"<html><script>1</script>"])

    def log_size(self, task_id, step):
        return 24

    def archive_size(self, task_id, step):
        return 24


def test_a_log_read_from_an_executor_is_never_taken_for_a_page(start_app):
    with start_app(make_executor_app(Executor(), Access(), LIMITS)) as executor:
        log = executor.request("GET", f"{API}/executor/logs?taskid=t&step=0")
        assert log.headers["content-type"] == "text/plain; charset=utf-8"
        times = executor.request("GET", f"{API}/executor/logs/times?taskid=t&step=0")
        assert times.headers["content-type"] == "application/octet-stream"
        archive = executor.request("GET", f"{API}/executor/archives?taskid=t&step=0")
        assert archive.headers["content-type"] == "application/x-tar"
        for answer in (log, times, archive, executor.request("GET", "/healthz"), executor.request("GET", f"{API}/x")):
            assert_safe(answer)


# Slow requests


@pytest.fixture
def crowded(start_server):
    """A server with tokens and two places for streams."""
    with start_server(TOKENS, Limits(streams=2, form_bytes=64, body_seconds=0.3)) as running:
        yield running


def test_forms_of_strangers_take_no_places_of_streams(crowded):
    slow = [crowded.connect() for _ in range(4)]
    wires = [opened.__enter__() for opened in slow]
    try:
        for wire in wires:
            wire.send("POST /page/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60\r\n\r\ntoken=")
        assert crowded.request("GET", f"{API}/export", headers=["Authorization: Bearer admin-canary-3"]).status == 200
        for wire in wires:  # and they end
            assert wire.response().status == 408
    finally:
        for opened in slow:
            opened.__exit__(None, None, None)


def test_a_form_is_small(crowded):
    answer = crowded.request("POST", "/page/login", b"token=" + b"x" * 64)
    assert (answer.status, answer.message) == (413, "the body is larger than 64 bytes")


def test_an_upload_that_drips_is_ended(start_app):
    def take(call):
        for _ in call.upload:
            pass
        return Response()

    limits = Limits(stall_seconds=0.2, upload_rate=1e9)
    row = Endpoint("POST", f"{PREFIX}/x", take, Principal.PUBLIC, "", "", upload="application/x-tar")
    with start_app(Application([row], Access(), limits), limits) as server, server.connect() as wire:
        wire.send(f"POST {PREFIX}/x HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        ended = threading.Event()

        def drip():  # never silent as long as the stall allows
            while not ended.wait(0.05):
                try:
                    wire.send("1\r\nx\r\n")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert wire.head()[0] == 408
        finally:
            ended.set()
            thread.join()


def test_one_kind_of_caller_leaves_places_to_the_others(start_app):
    ended = threading.Event()

    def stream(call):
        def pieces():
            yield b"begun"
            ended.wait()

        return StreamedResponse(pieces())

    rows = [
        Endpoint("GET", f"{PREFIX}/{kind.value}", stream, kind, "", "")
        for kind in (Principal.CLIENT, Principal.EXECUTOR)
    ]
    limits = Limits(streams=4)
    with start_app(Application(rows, Access(TOKENS), limits), limits) as server:
        opened = [server.connect() for _ in range(5)]
        wires = [item.__enter__() for item in opened]

        def ask(wire, kind, headers):
            wire.send("\r\n".join([f"GET {PREFIX}/{kind} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]))
            return wire.head()[0]

        try:
            assert [ask(wire, "client", CLIENT) for wire in wires[:4]] == [200, 200, 200, 503]
            assert ask(wires[4], "executor", EXECUTOR) == 200
        finally:
            ended.set()
            for item in opened:
                item.__exit__(None, None, None)


# Bodies that nobody wants


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit_is_answered_whatever_is_still_sent(start_server, announced):
    limits = Limits(body_bytes=1000)
    body = b"x" * (8 << 20)
    with start_server(limits=limits) as server, server.connect() as wire:
        head = f"POST {API}/runs HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        if announced:
            wire.send(head + f"Content-Length: {len(body)}\r\n\r\n")
            wire.send(body)
        else:
            wire.send(head + "Transfer-Encoding: chunked\r\n\r\n" + f"{len(body):x}\r\n")
            wire.send(body + b"\r\n0\r\n\r\n")
        assert wire.response().status == 413
        assert wire.request("GET", "/healthz").status == 200  # and the connection goes on


def test_a_refused_caller_is_told_so_while_it_still_sends(start_server):
    body = b"x" * (8 << 20)
    with start_server(TOKENS) as server, server.connect() as wire:
        wire.send(f"POST {API}/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n")
        wire.send(body)
        assert wire.response().status == 401


# What the document does not say


def test_a_method_that_a_path_does_not_have_is_told_with_those_that_it_has(server):
    documented = server.request("GET", "/openapi.json").json()["paths"]
    for path in (f"{API}/runs", f"{API}/executors", "/healthz"):
        answer = server.request("TRACE", path)
        assert answer.status == 405
        assert answer.headers["allow"] == ", ".join(sorted(method.upper() for method in documented[path]))


@pytest.mark.parametrize("path", ["sources", "executor/caches/empty", "import"])
def test_an_empty_upload_is_refused_and_stored_nowhere(server, path):
    before = list(server.datamanager.storage.list())
    answer = server.request("POST", f"{API}/{path}", b"")
    assert answer.status == 400
    assert list(server.datamanager.storage.list()) == before


# Signing in


@pytest.fixture(scope="module")
def guarded(start_server):
    with start_server(TOKENS) as running:
        yield running


def sign_in(server, token="client-canary-1", headers=()):
    return server.request("POST", "/page/login", f"token={token}".encode(), headers)


def cookie_of(answer):
    return [f"Cookie: {answer.headers['set-cookie'].partition(';')[0]}"]


def test_the_cookie_of_a_browser_is_no_token_and_tells_none(guarded):
    answer = sign_in(guarded)
    kept = answer.headers["set-cookie"]
    assert "client-canary-1" not in kept
    assert {"HttpOnly", "SameSite=strict"} <= set(kept.split("; "))
    value = kept.partition(";")[0].partition("=")[2]
    assert guarded.request("GET", f"{API}/runs", headers=cookie_of(answer)).status == 200
    assert guarded.request("GET", f"{API}/runs", headers=[f"Authorization: Bearer {value}"]).status == 401
    assert guarded.request("POST", f"{API}/checkpoints", headers=cookie_of(answer)).status == 403  # a client's alone
    foreign = [*cookie_of(answer), "Origin: http://evil.example"]
    assert guarded.request("GET", f"{API}/runs", headers=foreign).status == 401
    end, _, signature = value.partition(".")
    for forged in (
        f"{int(end) + 1}.{signature}",
        f"{end}.{signature[:-1]}0x",
        f"{end}.",
        "9" * 5000 + ".x",
        "client-canary-1",
    ):
        assert guarded.request("GET", f"{API}/runs", headers=[f"Cookie: {sessions.COOKIE}={forged}"]).status == 401


def test_a_session_ends_with_its_time_and_with_its_token():
    now = [1000.0]
    session = Access(TOKENS, clock=lambda: now[0]).sign_in(Principal.CLIENT, "client-canary-1")
    headers = Headers({"cookie": f"{sessions.COOKIE}={session}"})
    access = Access(TOKENS, clock=lambda: now[0])  # another instance, or the same after a restart
    assert access.admit(Principal.CLIENT, headers).principal is Principal.CLIENT
    with pytest.raises(UnauthorizedError):
        Access(Tokens(["another-token"]), clock=lambda: now[0]).admit(Principal.CLIENT, headers)
    now[0] += sessions.SECONDS
    with pytest.raises(UnauthorizedError):
        access.admit(Principal.CLIENT, headers)


def test_an_executors_token_signs_nobody_in(guarded):
    answer = sign_in(guarded, "executor-canary-2")
    assert (answer.headers["location"], answer.headers.get("set-cookie")) == ("/page/login?wrong", None)


def test_another_sites_page_signs_nobody_in_or_out(guarded):
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        for path in ("/page/login", "/page/logout"):
            answer = guarded.request("POST", path, b"token=client-canary-1", [f"Origin: {origin}"])
            assert (answer.status, answer.headers.get("set-cookie")) == (403, None)
    assert "set-cookie" in sign_in(guarded, headers=["Origin: http://127.0.0.1"]).headers


def test_another_sites_page_changes_no_run(guarded):
    cookie = sign_in(guarded).headers["set-cookie"].partition(";")[0]
    for name in ("stop", "restart", "delete", "tasks/t/approve"):
        path = f"/page/runs/r/{name}"
        foreign = guarded.request("POST", path, b"from=start", [f"Cookie: {cookie}", "Origin: http://evil.example"])
        assert (foreign.status, foreign.headers.get("location")) == (303, "/page/login")
        own = guarded.request("POST", path, b"from=start", [f"Cookie: {cookie}", "Origin: http://127.0.0.1"])
        assert own.status in {400, 404}  # it came as far as the run, which is not there


def test_over_tls_the_cookie_is_sent_over_tls_alone(certificate, serving, start_server):
    with start_server(TOKENS) as running:
        tls = Tls(certificate=certificate[0], key=certificate[1])
        with serving(running.app, tls=tls) as (_, port):
            context = httpx2.create_ssl_context()
            context.load_verify_locations(certificate[0])
            with httpx2.Client(verify=context, trust_env=False) as client:
                for path in ("login", "logout"):
                    answer = client.post(f"https://127.0.0.1:{port}/page/{path}", data={"token": "client-canary-1"})
                    assert "Secure" in answer.headers["set-cookie"].split("; ")
    assert "Secure" not in sessions.keep(Response(), "x", secure=False).headers["set-cookie"]
