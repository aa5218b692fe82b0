"""What errors become on the wire, and what our client makes of them: chains several deep, on a real connection."""

import logging

import pytest
from starlette.responses import Response

from agola_core import errors
from agola_http.access.control import Access
from agola_http.access.principals import Principal
from agola_http.outbound.transport import Transport
from agola_http.protocol.errors import RefusedError
from agola_http.protocol.names import PREFIX
from agola_http.server.application import Application
from agola_http.server.connections.limits import Limits
from agola_http.server.endpoints import Endpoint, StreamedResponse

API = "/api/v1alpha"


def chain(*links):
    """Raise the last link; each was raised from the one before it."""
    cause = None
    for link in links[:-1]:
        link.__cause__ = cause
        cause = link
    raise links[-1] from cause


@pytest.fixture(scope="module")
def raising(start_app):
    """Return a function that says what the server's handler does, and the server."""
    todo = []

    def handler(call):
        todo[0]()
        return Response()

    def broken():
        yield b"the beginning"
        todo[0]()

    def stream(call):
        return StreamedResponse(broken())

    endpoints = [
        Endpoint("GET", f"{PREFIX}/raise", handler, Principal.PUBLIC, "", ""),
        Endpoint("GET", f"{PREFIX}/stream", stream, Principal.PUBLIC, "", ""),
    ]
    with start_app(Application(endpoints, Access(), Limits())) as running:

        def set_up(*links):
            todo[:] = [lambda: chain(*links)]
            return running

        yield set_up


PLAIN = [
    (errors.BadRequestError("bad"), 400),
    (errors.ConfigError("wrong", source="f", line=3), 400),
    (errors.UnauthorizedError("who"), 401),
    (errors.ForbiddenError("no"), 403),
    (errors.NotFoundError("gone"), 404),
    (errors.ConflictError("moved"), 409),
    (errors.TokenExpiredError("old"), 409),
    (errors.InternalError("the other one failed"), 500),
    (errors.MaintenanceError("later"), 503),
]


@pytest.mark.parametrize(("error", "status"), PLAIN, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("depth", [0, 1, 4])
def test_the_innermost_api_error_is_told_and_raised_again(raising, error, status, depth):
    outer = [errors.UnavailableError("outer"), errors.InternalError("context"), RuntimeError("x"), ValueError("y")]
    server = raising(errors.CorruptionError("root", path="p"), error, *outer[:depth])
    answer = server.request("GET", f"{API}/raise")
    assert (answer.status, answer.json()) == (status, {"message": str(error)})
    assert answer.headers["content-type"] == "application/json"
    transport = Transport(server.url, retries=0)
    with pytest.raises(errors.AgolaError) as caught:
        transport.call("GET", f"{API}/raise")
    transport.close()
    told = errors.BadRequestError if isinstance(error, errors.ConfigError) else type(error)
    assert (type(caught.value), str(caught.value)) == (told, str(error))


@pytest.mark.parametrize(
    "links",
    [
        [ValueError("secret detail")],
        [errors.UnavailableError("secret detail"), errors.UnknownOutcomeError("secret detail")],
        [errors.CorruptionError("secret detail", path="p"), errors.FencedError("secret detail"), KeyError("k")],
    ],
    ids=["plain", "one", "three"],
)
def test_an_unknown_error_is_told_by_an_id_that_finds_its_chain_in_the_log(raising, caplog, links):
    server = raising(*links)
    with caplog.at_level(logging.ERROR):
        answer = server.request("GET", f"{API}/raise")
    assert answer.status == 500
    assert "secret" not in answer.message
    mark = answer.headers["agola-error-id"]
    assert answer.message == f"internal server error (id {mark})"
    record = next(record for record in caplog.records if mark in record.getMessage())
    shown = logging.Formatter().format(record)
    for link in links:
        assert type(link).__name__ in shown


@pytest.mark.parametrize(
    "error", [errors.UnavailableError, errors.DeadlineError, errors.NoLeaderError, errors.OutOfSpaceError]
)
def test_a_backend_that_is_away_is_told_as_such_and_its_chain_is_in_the_log(raising, caplog, error):
    server = raising(OSError("secret detail"), error("secret address"))
    answer = server.request("GET", f"{API}/raise")
    mark = answer.headers["agola-error-id"]
    message = f"a backend is unavailable: try again later (id {mark})"
    assert (answer.status, answer.message) == (503, message)
    assert "retry-after" in answer.headers
    record = next(record for record in caplog.records if mark in record.getMessage())
    shown = logging.Formatter().format(record)
    assert "secret detail" in shown
    assert error.__name__ in shown
    transport = Transport(server.url, retries=0)
    with pytest.raises(errors.UnavailableError, match="a backend is unavailable"):
        transport.call("GET", f"{API}/raise")
    transport.close()


def test_a_backend_that_is_another_one_is_told_as_such_with_what_the_operator_must_do(raising, caplog):
    server = raising(errors.RecoveryError("secret address: wiped: open the store anew"))
    answer = server.request("GET", f"{API}/raise")
    mark = answer.headers["agola-error-id"]
    assert answer.status == 503
    assert "is another one than the service began with" in answer.message
    assert "must restart the service" in answer.message
    assert "agola-core recover" in answer.message
    assert "try again later" not in answer.message
    assert "secret" not in answer.message
    (record,) = [record for record in caplog.records if mark in record.getMessage()]
    assert record.getMessage().endswith("RecoveryError: secret address: wiped: open the store anew")


def test_an_internal_error_shows_its_message_and_its_context_is_in_the_log(raising, caplog):
    server = raising(errors.InternalError("the executor failed"), ValueError("while fetching"))
    answer = server.request("GET", f"{API}/raise")
    assert (answer.status, answer.message) == (500, "the executor failed")
    record = next(record for record in caplog.records if answer.headers["agola-error-id"] in record.getMessage())
    assert "while fetching" in logging.Formatter().format(record)


def test_a_stream_that_fails_half_way_breaks_the_connection(raising, caplog):
    server = raising(errors.UnavailableError("the executor went away"))
    with server.connect() as wire:
        wire.send(f"GET {API}/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert wire.head()[0] == 200
        pieces = wire.chunks()
        assert next(pieces) == b"the beginning"
        with pytest.raises((ConnectionError, ValueError)):
            list(pieces)
    record = next(record for record in caplog.records if "broke off" in record.getMessage())
    assert "the executor went away" in record.getMessage()
    assert record.exc_info is None  # each follower of a log would bring its traceback
    transport = Transport(server.url, retries=0)
    with transport.pieces(f"{API}/stream") as pieces:
        assert next(pieces) == b"the beginning"
        with pytest.raises(errors.UnavailableError, match="broke off"), transport.pieces(f"{API}/stream") as two:
            list(two)
    transport.close()


@pytest.mark.parametrize(("method", "attempts"), [("GET", 3), ("PUT", 1)])
def test_only_calls_that_change_nothing_are_repeated(start_app, method, attempts):
    calls = []

    def handler(call):
        calls.append(call)
        if len(calls) < 3:
            raise RefusedError(503, "busy")
        return Response(b"at last")

    endpoints = [Endpoint(method, f"{PREFIX}/x", handler, Principal.PUBLIC, "", "")]
    with start_app(Application(endpoints, Access(), Limits())) as server:
        transport = Transport(server.url, timeout=30)
        if method == "GET":
            assert transport.call(method, f"{API}/x").content == b"at last"
        else:
            with pytest.raises(errors.UnavailableError, match="busy"):
                transport.call(method, f"{API}/x")
        assert len(calls) == attempts
    with pytest.raises(errors.UnavailableError, match="cannot be reached"):
        transport.call("PUT", f"{API}/x")
    transport.close()


def test_a_url_that_is_none(start_app):
    for url in ("", "nothing", "ftp://x", "http://user:secret@host", "http://"):
        with pytest.raises(errors.BadRequestError):
            Transport(url)
