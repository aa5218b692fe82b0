"""Every row of the table of S3's answers, on a real server: what a write's caller is told is what was done."""

import contextlib
import os
import socket
import ssl
import subprocess
import threading
import uuid
from pathlib import Path

import pytest

import agola_core
from agola_core.errors import AgolaError, ConflictError, ForbiddenError, UnavailableError, error_chain
from agola_core.objectstorage.outcome import Outcome
from agola_core.objectstorage.s3.outcomes import TABLE, row_of
from agola_pytest.faults.s3_proxy import Failure, S3Proxy

MIB = 2**20
FAILED = "500, 502, 503, 504, 507, SlowDown, Throttling, and an error after a 200"
ROWS = {
    Failure.STALL: "no answer in time",
    Failure.RESET_BEFORE: "the connection broke before the answer",
    Failure.INCOMPLETE: "400 RequestTimeout, BadDigest, IncompleteBody: less, or other, bytes came than were sent",
    Failure.CONFLICT: "409 ConditionalRequestConflict, OperationAborted",
    Failure.DIRECTORY: "409 ExistingObjectIsDirectory",
    Failure.PRECONDITION: "412 PreconditionFailed",
    Failure.THROTTLED: "429 TooManyRequests",
    Failure.SERVER_ERROR: FAILED,
    Failure.UNAVAILABLE: FAILED,
    Failure.GATEWAY: FAILED,
    Failure.FULL: FAILED,
    Failure.NO_UPLOAD: "404 NoSuchUpload",
    Failure.LATE_ERROR: FAILED,  # the client makes a 500 of it
    Failure.DENIED: "another 3xx or 4xx",
    Failure.AWAY: "no connection: refused, no route, no such host",
}
ELSEWHERE = {
    "no credentials, nothing sent",  # below
    "a certificate that is not trusted",
    "an answer that is cut short or damaged",  # below, and for reads in test_s3_faults.py
    "anything else",
}
OLD, NEW = b"old " * MIB, b"new " * MIB * 2  # an object in one request, and one in parts
WRITES = {
    "put": lambda storage: storage.write("key", b"new"),
    "create": lambda storage: storage.write("key", b"new", if_absent=True),
    "parts": lambda storage: storage.write("key", NEW),
    "create in parts": lambda storage: storage.write("key", NEW, if_absent=True),
}


@pytest.fixture(scope="module")
def proxy(agola_session_s3):
    with S3Proxy(agola_session_s3.below(uuid.uuid4().hex)) as proxy:
        yield proxy


@pytest.fixture
def storage(proxy, request):
    """A storage that waits for no answer for long only where none comes, so that a busy machine is no failure."""
    given = getattr(request.node, "callspec", None)
    seconds = 3 if given is not None and given.params.get("failure") is Failure.STALL else 60
    url = proxy.url(uuid.uuid4().hex, part_size=5 * MIB, request_timeout=seconds, timeout=120, attempts=2)
    with contextlib.closing(agola_core.open_storage(url)) as storage:
        yield storage
        proxy.heal()


def is_write(request):
    """Return whether a request is the one that makes an object."""
    if request.method == "POST":
        return "uploadId=" in request.query
    return request.method == "PUT" and "partNumber" not in request.query


def stored(storage):
    return {info.path: storage.read(info.path) for info in storage.list()}


def applicable(failure, name):
    match failure:
        case Failure.NO_UPLOAD:
            return "parts" in name
        case Failure.PRECONDITION:
            return "create" in name
        case Failure.DIRECTORY:
            return name == "put"
        case Failure.UNAVAILABLE | Failure.GATEWAY | Failure.FULL:  # of the same row as another
            return name == "create"
        case _:
            return failure is not Failure.AWAY  # see test_s3_faults.py


CASES = [(failure, name) for failure in ROWS for name in WRITES if applicable(failure, name)]
cases = pytest.mark.parametrize(("failure", "name"), CASES, ids=lambda value: getattr(value, "name", value))


@cases
def test_a_write_that_was_applied_succeeds_whatever_was_answered(proxy, storage, failure, name):
    """The answer lies, and goes on doing so: what is there is looked at before the caller hears anything."""
    if failure in {Failure.DENIED, Failure.DIRECTORY}:
        pytest.skip("a denial is believed")
    if "create" not in name:
        storage.write("key", OLD)
    proxy.fail(failure, is_write, applied=True)
    WRITES[name](storage)
    proxy.heal()
    assert stored(storage) == {"key": b"new" if "parts" not in name else NEW}


@cases
def test_a_write_that_was_not_applied_is_an_error_and_leaves_what_was_there(proxy, storage, failure, name):
    before = {}
    if "create" not in name:
        storage.write("key", OLD)
        before = {"key": OLD}
    proxy.fail(failure, is_write)
    expected = ConflictError if failure is Failure.PRECONDITION else AgolaError
    with pytest.raises(expected) as caught:
        WRITES[name](storage)
    if failure not in {Failure.DENIED, Failure.DIRECTORY, Failure.PRECONDITION}:
        assert isinstance(caught.value, UnavailableError)
    proxy.heal()
    assert stored(storage) == before


@cases
def test_a_failure_that_passes_is_made_up_for(proxy, storage, failure, name):
    if not next(row for row in TABLE if row.name == ROWS[failure]).again:
        pytest.skip("it is no failure that passes")
    if "create" not in name:
        storage.write("key", OLD)
    proxy.fail(failure, is_write, times=1)
    WRITES[name](storage)
    assert stored(storage) == {"key": b"new" if "parts" not in name else NEW}


@pytest.mark.parametrize("name", ["parts", "create in parts"])
def test_an_answer_that_is_cut_short_after_a_complete_upload(proxy, storage, name):
    proxy.fail(Failure.TRUNCATE, is_write)
    WRITES[name](storage)
    assert stored(storage) == {"key": NEW}


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("failure", [Failure.RESET_BEFORE, Failure.SERVER_ERROR, Failure.STALL])
def test_a_deletion_whose_answer_is_lost(proxy, storage, failure, applied):
    storage.write("key", OLD)
    proxy.fail(failure, lambda request: request.method == "DELETE", applied=applied)
    with contextlib.nullcontext() if applied else pytest.raises(UnavailableError):
        storage.delete("key")
    proxy.heal()
    assert list(stored(storage)) == ([] if applied else ["key"])


@pytest.mark.parametrize("name", WRITES)
def test_what_cannot_be_told_is_said_to_be_so(proxy, storage, name):
    proxy.fail(Failure.SERVER_ERROR, is_write)
    proxy.fail(Failure.SERVER_ERROR, lambda request: request.method in {"GET", "HEAD"})
    if "create" in name:  # whether it exists is asked first, and answered
        seen = iter([True])
        proxy._rules.pop()
        proxy.fail(Failure.SERVER_ERROR, lambda request: request.method in {"GET", "HEAD"} and not next(seen, False))
    with pytest.raises(UnavailableError, match="whether it was written cannot be told"):
        WRITES[name](storage)


@pytest.mark.parametrize("failure", ROWS, ids=lambda failure: failure.name)
def test_each_answer_is_of_its_row(proxy, storage, failure):
    name = {Failure.NO_UPLOAD: "parts", Failure.AWAY: "put"}.get(failure, "create")
    if failure is Failure.AWAY:
        proxy.away()
    proxy.fail(failure, is_write)
    with pytest.raises(AgolaError) as caught:
        WRITES[name](storage)
    if failure is Failure.AWAY:
        proxy.back()
    original = next(error for error in error_chain(caught.value) if not isinstance(error, AgolaError))
    assert row_of(original).name == ROWS[failure]


def test_a_certificate_that_is_not_trusted_is_told_at_once(tmp_path, monkeypatch):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *files], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    connections = []

    def serve():
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                connections.append(listener.accept()[0])
                with contextlib.suppress(OSError), context.wrap_socket(connections[-1], server_side=True) as client:
                    client.recv(1)

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    monkeypatch.setenv("MINE_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("MINE_SECRET_ACCESS_KEY", "secret")
    try:
        with pytest.raises(UnavailableError, match="certificate verify failed") as caught:
            agola_core.open_storage(
                f"s3://bucket?endpoint=https://127.0.0.1:{listener.getsockname()[1]}&credentials=MINE"
            )
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
    assert row_of(caught.value.__cause__).name == "a certificate that is not trusted"
    assert len(connections) == 1


def test_without_credentials_nothing_is_sent(proxy, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    before = len(proxy.requests)
    with pytest.raises(ForbiddenError, match="no credentials") as caught:
        agola_core.open_storage(f"s3://bucket?endpoint={proxy.endpoint}")
    assert row_of(caught.value.__cause__).name == "no credentials, nothing sent"
    assert len(proxy.requests) == before


def test_every_row_has_a_test_and_stands_in_the_documentation():
    assert {row.name for row in TABLE} == {*ROWS.values()} | ELSEWHERE
    page = (Path(__file__).parents[3] / "docs/guarantees.md").read_text()
    for row in TABLE:
        outcome = "not applied" if row.outcome is Outcome.NOT_APPLIED else "unknown"
        assert f"| {row.name} | {outcome} | {row.source} |" in page
