"""Streams and slow peers: what is flushed, what is held in memory, what is cut off, what is told at the end."""

import resource
import socket
import threading
from pathlib import Path

import pytest
from starlette.responses import Response

from agola_http.access.control import Access
from agola_http.access.principals import Principal
from agola_http.protocol.names import PREFIX
from agola_http.server.application import Application
from agola_http.server.connections.limits import Limits
from agola_http.server.endpoints import Endpoint, StreamedResponse

API = "/api/v1alpha"
LIMITS = Limits()
PIECE = b"x" * (1 << 20)


class Source:
    """Pieces that count themselves, and know whether they were closed."""

    def __init__(self, count):
        self.count = count
        self.given = 0
        self.closed = threading.Event()

    def __call__(self, call):
        def pieces():
            try:
                while self.given < self.count:
                    self.given += 1
                    yield PIECE
            finally:
                self.closed.set()

        return StreamedResponse(pieces())


def app_of(handler, limits=LIMITS, **fields):
    endpoints = [Endpoint(fields.pop("method", "GET"), f"{PREFIX}/x", handler, Principal.PUBLIC, "", "", **fields)]
    return Application(endpoints, Access(), limits)


def get(wire):
    wire.send(f"GET {API}/x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_stalled_reader_holds_no_memory(start_app):
    source = Source(4096)  # 4 GiB
    with start_app(app_of(source)) as server, server.connect() as wire, server.connect() as other:
        before = resident()
        get(wire)
        assert wire.head()[0] == 200
        steady = -1
        while steady != source.given:  # until nothing more is pulled
            steady = source.given
            for _ in range(20):
                assert other.request("GET", f"{API}/nothing").status == 400
        assert source.given < 64
        assert resident() - before < 64 * len(PIECE)
    assert source.closed.wait(30)


def test_a_reader_that_takes_nothing_is_cut_off(start_app):
    source = Source(4096)
    limits = Limits(stall_seconds=0.2)
    with start_app(app_of(source, limits), limits) as server, server.connect() as wire:
        get(wire)
        assert wire.head()[0] == 200
        assert source.closed.wait(30)
        with pytest.raises((ConnectionError, ValueError)):
            list(wire.chunks())


def test_a_stream_whose_reader_leaves_is_closed_also_while_it_waits(start_app):
    waits, closed = threading.Event(), threading.Event()

    def pieces():
        try:
            yield b"first"
            while True:
                waits.set()
                threading.Event().wait(0.05)
                yield b""
        finally:
            closed.set()

    with start_app(app_of(lambda call: StreamedResponse(pieces()))) as server:
        with server.connect() as wire:
            get(wire)
            assert wire.head()[0] == 200
            assert next(wire.chunks()) == b"first"
            assert waits.wait(30)
        assert closed.wait(30)


def test_pieces_are_flushed_one_by_one_and_empty_ones_end_nothing(start_app):
    go = threading.Semaphore(0)

    def pieces():
        for piece in (b"", b"one", b"", b"two"):
            go.acquire()
            yield piece

    with start_app(app_of(lambda call: StreamedResponse(pieces()))) as server, server.connect() as wire:
        get(wire)
        go.release(2)
        status, headers = wire.head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        chunks = wire.chunks()
        assert next(chunks) == b"one"
        go.release(2)
        assert list(chunks) == [b"two"]


def test_an_empty_stream_has_length_0_and_the_connection_goes_on(start_app):
    with start_app(app_of(lambda call: StreamedResponse(iter([b"", b""])))) as server, server.connect() as wire:
        for _ in range(2):
            get(wire)
            answer = wire.response()
            assert (answer.status, answer.headers["content-length"]) == (200, "0")


def test_one_stream_too_many_is_answered_503(start_app):
    source = Source(4096)
    limits = Limits(streams=1)
    with start_app(app_of(source, limits), limits) as server:
        with server.connect() as first, server.connect() as second:
            get(first)
            assert first.head()[0] == 200
            get(second)
            answer = second.response()
            assert answer.status == 503
            assert "retry-after" in answer.headers
        assert source.closed.wait(30)


def test_hundreds_of_slow_connections_leave_the_others_alone(start_app):
    with start_app(app_of(lambda call: Response(b"here"))) as server:
        slow = [server.connect() for _ in range(300)]
        try:
            for number, context in enumerate(slow):
                wire = context.__enter__()
                wire.send(f"GET {API}/x HTTP/1.1\r\nHost: 127"[: 5 + number % 30])
            assert server.request("GET", f"{API}/x").body == b"here"
        finally:
            for context in slow:
                context.__exit__(None, None, None)


def test_heads_and_bodies_that_take_too_long_are_cut_off(start_app):
    limits = Limits(header_seconds=0.2, body_seconds=0.2)
    with start_app(app_of(lambda call: Response(b"here"), limits, method="POST", body=dict), limits) as server:
        with server.connect() as wire:
            wire.send("GET / HT")
            assert wire.file.read() == b""
        with server.connect() as wire:  # the head of a later request, too
            assert wire.request("POST", f"{API}/x", {}).status == 200
            wire.send("GET / HT")
            assert wire.file.read() == b""
        with server.connect() as wire:
            wire.send(f"POST {API}/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n{{")
            assert wire.response().status == 408


def test_heads_and_bodies_that_are_too_large_are_refused(start_app):
    limits = Limits(body_bytes=100, header_bytes=2000)
    with start_app(app_of(lambda call: Response(b"here"), limits, method="POST", body=dict), limits) as server:
        assert server.request("POST", f"{API}/x", b"1" * 101).status == 413
        assert server.request("POST", f"{API}/x", {}, ["X: " + "y" * 5000]).status == 431
        with server.connect() as wire:
            wire.send(f"POST {API}/x HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
            wire.send(b"70\r\n" + b"1" * 112 + b"\r\n0\r\n\r\n")
            assert wire.response().status == 413
        with server.connect() as wire:
            wire.send(f"GET {API}/x HTTP/1.1\r\nX: " + "y" * 5000)
            assert wire.response().status == 400
        with server.connect() as wire:
            wire.send("this is no HTTP\r\n\r\n")
            answer = wire.response()
            assert (answer.status, isinstance(answer.message, str)) == (400, True)


def test_an_upload_is_read_as_its_handler_takes_it_and_may_be_refused_early(start_app):
    def handler(call):
        return Response(next(call.upload)[:3])

    with start_app(app_of(handler, method="POST", upload="x/y")) as server, server.connect() as wire:
        for _ in range(2):
            assert wire.request("POST", f"{API}/x", b"abcdef" * 100_000).body == b"abc"


def test_an_upload_that_stalls_or_is_too_large_is_refused(start_app):
    limits = Limits(stall_seconds=0.2, upload_bytes=1000)

    def handler(call):
        return Response(b"".join(call.upload))

    with start_app(app_of(handler, limits, method="POST", upload="x/y"), limits) as server:
        assert server.request("POST", f"{API}/x", b"1" * 1001).status == 413
        with server.connect() as wire:
            wire.send(f"POST {API}/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nabc")
            assert wire.response().status == 408


def test_small_answers_are_not_held_back(start_app):
    with start_app(app_of(lambda call: Response(b"here"))) as server, server.connect() as wire:
        get(wire)
        assert wire.response().body == b"here"
        for connection in server.server.server_state.connections:  # else Nagle's algorithm makes each wait 40 ms
            accepted = connection.transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
