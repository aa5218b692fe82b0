"""Connections to an S3 server: reused while they are fresh, and never waited on past a deadline."""

import socket
import threading
import time

import pytest

from agola_core.objectstorage.s3.protocol import connection as module
from agola_core.objectstorage.s3.protocol.connection import Connections, NotConnectedError, Server, TruncatedBodyError


@pytest.fixture
def server():
    """A server that answers each request with the next of some texts, on connections that it keeps."""
    listener = socket.create_server(("127.0.0.1", 0))
    answers, accepted = [], []

    def serve(client):
        with client:
            while client.recv(65536):
                for piece in answers.pop(0):
                    if piece is None:
                        return
                    client.sendall(piece)

    def accept():
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            accepted.append(client)
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    connections = Connections(Server(*listener.getsockname()), 5)
    yield connections, answers, accepted
    connections.close()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Y: z\r\n\r\nok"


def ask(connections, seconds=10):
    return connections.request("GET", "/", [("host", "h")], b"", seconds)


def test_a_connection_is_reused_and_dropped_when_it_is_old(server, monkeypatch):
    connections, answers, accepted = server
    answers += [[OK], [OK], [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"], [OK], [OK]]
    for _ in range(3):
        answer = ask(connections)
        assert (answer.status, answer.body) == (200, b"ok")
    assert len(accepted) == 1
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0)
    ask(connections)
    ask(connections)
    assert len(accepted) == 3
    assert not connections._idle


def test_a_connection_that_the_server_has_closed_is_not_used_again(server):
    connections, answers, accepted = server
    answers += [[OK, None], [OK]]
    ask(connections)
    deadline = time.monotonic() + 10
    while not module._is_readable(connections._idle[0][0]):  # its end has arrived
        assert time.monotonic() < deadline
    assert ask(connections).body == b"ok"
    assert len(accepted) == 2


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", None], TruncatedBodyError),
        ([b"220 this is another protocol\r\n", None], TruncatedBodyError),
        ([None], ConnectionResetError),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok"], TimeoutError),
        ([b"HTTP/1.1 200 OK\r\n"], TimeoutError),
    ],
    ids=["short", "not HTTP", "no answer", "slow body", "slow head"],
)
def test_answers_that_are_none(server, pieces, error):
    connections, answers, _ = server
    answers.append(pieces)
    with pytest.raises(error):
        ask(connections, 0.3)
    assert not connections._idle


def test_nothing_is_sent_where_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NotConnectedError):
        ask(Connections(Server("127.0.0.1", port), 1))
