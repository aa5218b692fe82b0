"""Work on an upload ends when nobody waits for it: its client has left, or the server stops."""

import threading

import pytest

from agola_core.encoding.compression import compress
from agola_core.errors import DeadlineError
from agola_core.runservice.archive import transfer

API = "/api/v1alpha"


def long_export():
    """Return an export that is small enough to be sent at once, and unpacks to a gigabyte before it is cut short."""
    header = b'{"agola_export":1,"store":"s","sequence":"s","data_types":["run","runconfig","runcounter"]}\n'
    line = b'{"section":"logs","id":"logs/x","data":"' + b"AAAA" * 65536 + b'","more":true}\n'
    body = compress(header, 1) + compress(line * 64, 1) * 64
    assert len(body) < 250_000
    head = f"POST {API}/import?dry_run HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Watched:
    """An import whose begin and end are told."""

    def __init__(self):
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.error = None
        self._run = transfer.import_

    def __call__(self, *arguments, **named):
        self.begun.set()
        try:
            return self._run(*arguments, **named)
        except Exception as error:
            self.error = error
            raise
        finally:
            self.ended.set()


@pytest.fixture
def watched(monkeypatch):
    watched = Watched()
    monkeypatch.setattr(transfer, "import_", watched)
    return watched


def test_an_import_ends_with_its_client(start_server, watched):
    with start_server() as server:
        with server.connect() as wire:
            wire.send(long_export())
            assert watched.begun.wait(30)
        assert watched.ended.wait(60)
    assert isinstance(watched.error, DeadlineError)


def test_an_import_ends_with_the_server(start_server, watched):
    with start_server() as server, server.connect() as wire:
        wire.send(long_export())
        assert watched.begun.wait(30)
        server.server.should_exit = True
        assert watched.ended.wait(60)
        assert isinstance(watched.error, DeadlineError)
        answer = wire.response()
        assert (answer.status, answer.message) == (503, "the server stops")
