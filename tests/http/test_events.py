"""The streams of run events: Agola's, to the byte, and the one that can be gone on with."""

import json
import re
import select

import pytest

from agola_core.errors import BadRequestError
from agola_http.client import Client
from agola_http.client.event_stream import read_events
from agola_http.server.connections.limits import Limits

API = "/api/v1alpha"


class Stream:
    """An open event stream."""

    def __init__(self, wire, path, headers=()):
        self.wire = wire
        wire.send("\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]))
        self.status, self.headers = None, None
        self.chunks = None

    def begin(self):
        self.status, self.headers = self.wire.head()
        self.chunks = self.wire.chunks()
        return self

    def next(self):
        """Return the next piece that is no heartbeat."""
        return next(chunk for chunk in self.chunks if not chunk.startswith(b":"))


def set_up_error(server, group="/project/e1"):
    body = {"name": "r", "group": group, "setup_errors": ["wrong"]}
    return server.request("POST", f"{API}/runs", body).json()["run"]["id"]


def test_agolas_stream_is_what_agolas_parser_takes(server):
    with server.connect() as wire:
        stream = Stream(wire, f"{API}/runs/events?startruneventid=ignored")
        while not select.select([wire.socket], [], [], 0.1)[0]:
            set_up_error(server)  # events before the stream are lost, as in Agola: make them until one is seen
        stream.begin()
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-cache"
        piece = stream.next()
        assert re.fullmatch(rb"data: {[^\n]*}\n\n", piece)
        event = json.loads(piece[6:])
        assert set(event) == {"Sequence", "RunID", "Phase", "Result"}
        assert (event["Phase"], event["Result"]) == ("setuperror", "unknown")
        assert server.request("GET", f"{API}/runs/{event['RunID']}").status == 200  # readable before its event


def test_our_stream_goes_on_where_it_was_left(server):
    path = f"{API}/events"
    with server.connect() as wire:
        stream = Stream(wire, path).begin()
        assert re.fullmatch(rb"retry: 1000\nid: \S+\nevent: start\ndata: {}\n\n", stream.next())
        first = set_up_error(server)
        piece = stream.next().decode()
        match = re.fullmatch(r"id: (\S+)\nevent: run\ndata: ({.*})\n\n", piece)
        assert json.loads(match[2])["RunID"] == first
        assert json.loads(match[2])["Sequence"] == match[1]
    second, third = set_up_error(server), set_up_error(server)
    for given in ((path, [f"Last-Event-ID: {match[1]}"]), (f"{path}?after={match[1]}", [])):
        with server.connect() as wire:
            stream = Stream(wire, *given).begin()
            stream.next()
            seen = [json.loads(stream.next().split(b"data: ")[1])["RunID"] for _ in range(2)]
            assert seen == [second, third]
    assert server.request("GET", f"{path}?after=nonsense").status == 400


def test_the_client_sees_every_event_once_and_ends_with_the_service(start_server):
    with start_server() as server, Client(server.url) as client:
        with server.connect() as wire:
            stream = Stream(wire, f"{API}/events").begin()
            stream.next()
            first = set_up_error(server)
            place = re.match(r"id: (\S+)", stream.next().decode())[1]
        wanted = [set_up_error(server) for _ in range(3)]
        events = client.watch_events(place)
        seen = [next(events) for _ in wanted]
        assert [event.run_id for event in seen] == wanted
        assert first not in wanted
        for connection in list(server.server.server_state.connections):  # broken under the reader
            server.server.servers[0].get_loop().call_soon_threadsafe(connection.transport.abort)
        later = set_up_error(server)
        assert next(events).run_id == later
        with pytest.raises(BadRequestError):
            next(client.watch_events("nonsense"))
        server.server.should_exit = True
        assert list(events) == []


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_event_streams_are_read_however_they_are_cut(size):
    stream = (
        b"retry: 1\n\n: comment\nid: 1\ndata: a\ndata:b\n\ndata: c\r\n\r\nevent: e\n\nevent: f\nid\ndata\n\ndata: lost"
    )
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert list(read_events(pieces)) == [("message", "1", b"a\nb"), ("message", "1", b"c"), ("f", "", b"")]


def test_our_stream_says_that_it_lives_and_that_it_ends(start_server):
    limits = Limits(heartbeat_seconds=0.0)
    with start_server(limits=limits) as server, server.connect() as wire:
        stream = Stream(wire, f"{API}/events").begin()
        assert next(stream.chunks).startswith(b"retry: 1000\n")
        assert next(stream.chunks) == b": still here\n\n"
        server.server.should_exit = True
        rest = [chunk for chunk in stream.chunks if not chunk.startswith(b":")]
        assert rest == [b"event: shutdown\ndata: {}\n\n"]


def test_open_streams_end_in_order_when_maintenance_begins(start_server):
    with (
        start_server() as server,
        server.connect() as ours,
        server.connect() as agolas,
        Client(server.url) as client,
    ):
        stream = Stream(ours, f"{API}/events").begin()
        place = re.search(rb"id: (\S+)", stream.next())[1].decode()
        Stream(agolas, f"{API}/runs/events")
        run_id = set_up_error(server)
        events = client.watch_events(place)
        assert next(events).run_id == run_id
        while server.app.open_streams < 3:
            set_up_error(server)
        assert server.app.state.backend.gate.close(60) is server.service  # nobody has to be cut off
        list(events)  # an end, no error
        assert list(stream.chunks)[-1] == b"event: shutdown\ndata: {}\n\n"
        assert agolas.response().status == 200
