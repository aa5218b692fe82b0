"""S3 servers and networks that fail: nothing is lost, repeated blindly or believed when it is damaged."""

import contextlib
import functools
import itertools
import logging
import os
import threading
from datetime import timedelta

import msgspec
import pytest

import agola_core
from agola_core import Options, Put
from agola_core.datamanager.background import maintenance_tasks
from agola_core.errors import (
    BadRequestError,
    ConflictError,
    DeadlineError,
    ForbiddenError,
    NotFoundError,
    UnavailableError,
)
from agola_core.objectstorage.s3 import multipart
from agola_core.objectstorage.s3.protocol import requests
from agola_pytest.faults.s3_proxy import Failure, S3Proxy
from agola_pytest.fixtures import require
from agola_pytest.servers.s3 import S3MissingError, S3Program, start_s3

PASSING = [
    Failure.RESET_BEFORE,
    Failure.RESET_AFTER,
    Failure.TRUNCATE,
    Failure.SERVER_ERROR,
    Failure.UNAVAILABLE,
    Failure.THROTTLED,
]
LASTING = {
    **dict.fromkeys(PASSING, UnavailableError),
    Failure.STALL: DeadlineError,
    Failure.DENIED: ForbiddenError,
    Failure.SKEWED: UnavailableError,
    Failure.FULL: UnavailableError,
}


@pytest.fixture
def proxy(agola_s3):
    with S3Proxy(agola_s3) as proxy:
        yield proxy


@pytest.fixture
def storage(proxy):
    storage = agola_core.open_storage(proxy.url("storage", part_size=5 * 2**20, request_timeout=2, timeout=10))
    storage.write("old", b"old" * 1000)
    yield storage
    proxy.heal()
    storage.close()


def uses(storage):
    """Return each call of the port by name."""
    return {
        "read": lambda: storage.read("old"),
        "range": lambda: storage.read("old", 3, 6),
        "reader": lambda: storage.open_reader("old").read(0, 3),
        "stream": lambda: b"".join(storage.open_stream("old")),
        "stat": lambda: storage.stat("old").size,
        "list": lambda: [info.path for info in storage.list()],
        "write": lambda: storage.write("new", b"new"),
        "parts": lambda: storage.write("large", b"x" * (6 * 2**20)),
        "create": lambda: storage.write("created", b"new", if_absent=True),
        "delete": lambda: storage.delete("old"),
    }


@pytest.mark.parametrize("failure", PASSING, ids=lambda failure: failure.name)
def test_a_failure_that_passes_is_not_noticed(proxy, storage, failure):
    for name, use in uses(storage).items():
        for number in range(3):  # the n-th request of the call fails once
            seen = itertools.count()
            proxy.fail(failure, lambda _, seen=seen, number=number: next(seen) == number, times=1)
            use()
            proxy.heal()
            for info in list(storage.list()):
                storage.delete(info.path)
            storage.write("old", b"old" * 1000)
            if name == "parts" and failure not in {Failure.RESET_AFTER, Failure.SERVER_ERROR}:
                break


def storage_has(storage, key):
    return any(info.path == key for info in storage.list(key))


@pytest.fixture
def on_retry():
    """Return a function that sets what is done whenever the storage is about to try again."""

    class Noted(logging.Handler):
        act = staticmethod(lambda: None)

        def emit(self, record):
            if "trying again" in record.getMessage():
                self.act()

    handler = Noted()
    logger = logging.getLogger("agola_core.objectstorage")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield functools.partial(setattr, handler, "act")
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.mark.parametrize("name", list(uses(None)))
def test_a_server_that_is_away_for_a_moment_is_waited_for(proxy, storage, on_retry, name):
    """A refused connection was an error at once, however many attempts there were to be."""
    refused = itertools.count(1)
    on_retry(lambda: proxy.back() if next(refused) == 3 else None)
    if name == "create":  # what may not be repeated blindly; whether it is there can be asked
        proxy.fail(Failure.AWAY, lambda request: request.method == "PUT", times=1)
    else:
        proxy.away()
    uses(storage)[name]()
    assert next(refused) > 3
    if name == "create":
        assert storage.read("created") == b"new"


def test_a_server_that_stays_away_is_tried_as_often_as_was_asked(proxy, on_retry):
    retries = []
    with contextlib.closing(agola_core.open_storage(proxy.url("away", attempts=4))) as storage:
        on_retry(lambda: retries.append(1))
        proxy.away()
        with pytest.raises(UnavailableError, match="cannot be reached"):
            storage.read("old")
    assert len(retries) == 3


@pytest.mark.parametrize("failure", LASTING, ids=lambda failure: failure.name)
def test_a_failure_that_lasts_is_one_typed_error(proxy, storage, failure):
    storage._client.options = msgspec.structs.replace(storage._options, attempts=2, request_timeout=0.5)
    for name, use in uses(storage).items():
        if failure is Failure.STALL and name not in {"range", "create"}:
            continue  # each waits for its deadline
        if failure is Failure.TRUNCATE and name in {"stat", "write", "delete", "parts", "create"}:
            continue  # answers without a body
        proxy.fail(failure)
        with pytest.raises(LASTING[failure]) as caught:
            use()
        proxy.heal()
        chain = "".join(map(str, [caught.value, caught.value.__cause__, storage, repr(storage)]))
        for suffix in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):  # secrets stand in no error
            assert os.environ[f"{proxy.credentials}_{suffix}"] not in chain
        assert storage.read("old") == b"old" * 1000  # healthy again
    if failure is not Failure.RESET_AFTER:  # the beginning of an upload that nobody heard of is left to the sweep
        assert not unfinished(storage)


def unfinished(storage):
    return storage._uploader.sweep.unfinished()


def test_a_creation_in_doubt_is_looked_at_before_it_is_repeated(agola_s3, proxy, storage):
    proxy.fail(Failure.RESET_AFTER, lambda request: request.method == "PUT", times=1)
    assert storage.write("a", b"mine", if_absent=True) == 4
    assert storage.read("a") == b"mine"
    proxy.fail(Failure.RESET_BEFORE, lambda request: request.method == "PUT", times=1)
    assert storage.write("b", b"mine", if_absent=True) == 4

    def other_writer(request):
        if request.method != "PUT" or storage_b.done:
            return False
        storage_b.done = True
        threading.Thread(target=storage_b.write).start()
        storage_b.written.wait(10)
        return True

    class storage_b:  # noqa: N801 - a writer that is faster while ours is in doubt
        done = False
        written = threading.Event()

        @staticmethod
        def write():
            other.write("c", b"theirs")
            storage_b.written.set()

    other = agola_core.open_storage(agola_s3.url("storage"))
    try:
        proxy.fail(Failure.RESET_BEFORE, other_writer)
        with pytest.raises(ConflictError):
            storage.write("c", b"mine", if_absent=True)
        assert storage.read("c") == b"theirs"
    finally:
        other.close()


def test_large_creations_in_doubt_are_looked_at_too(proxy, storage):
    data = bytes(range(256)) * (6 * 2**12)
    proxy.fail(Failure.RESET_AFTER, lambda request: request.method == "POST" and "uploadId" in request.query, times=1)
    assert storage.write("large", data, if_absent=True) == len(data)
    assert storage.read("large") == data
    with pytest.raises(ConflictError):
        storage.write("large", data, if_absent=True)


def test_an_interrupted_upload_leaves_no_parts(proxy, storage):
    def interrupted():
        yield b"x" * (11 * 2**20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.write("large", interrupted())
    assert not unfinished(storage)
    assert not storage_has(storage, "large")


def test_what_a_killed_process_left_of_an_upload_is_swept(storage, monkeypatch):
    client = storage._client
    for key in (storage._key("left"), "elsewhere"):
        upload_id = client.fetch(requests.create_upload(key, ()), requests.upload_id_of, "upload")
    storage.write("large", b"x" * (6 * 2**20))
    assert len(unfinished(storage)) == 1  # young: another process may be at work
    monkeypatch.setattr(multipart, "_ABANDONED", timedelta())
    storage._uploader.sweep._done = False
    storage.write("large", b"x" * (6 * 2**20))
    assert not unfinished(storage)
    client.call(requests.abort_upload("elsewhere", upload_id), "upload")  # another prefix's was left alone


def test_bytes_that_changed_on_the_server_are_noticed(proxy, storage):
    """A server that gives other bytes than it got is caught by the checksum, in one piece and in parts."""
    storage.write("small", b"right bytes")
    storage.write("large", b"x" * (11 * 2**20))
    proxy.flip = True
    for use in (
        lambda: storage.read("small"),
        lambda: storage.read("large"),
        lambda: b"".join(storage.open_stream("large")),
    ):
        with pytest.raises(UnavailableError, match=r"damaged|other bytes"):
            use()
    proxy.flip = False
    assert storage.read("small") == b"right bytes"


def test_an_object_replaced_while_it_is_streamed_is_never_mixed(storage):
    storage.write("large", b"a" * (17 * 2**20))
    stream = storage.open_stream("large")
    first = next(stream)
    storage.write("large", b"b" * (17 * 2**20))
    assert set(first) == {97}
    seen = set()
    with pytest.raises(NotFoundError, match="replaced"):
        seen.update(*stream)
    assert seen <= {97}


def test_threads_wait_for_the_network_at_the_same_time(proxy, storage):
    arrived = threading.Semaphore(0)
    everybody = threading.Event()

    def held(request):
        """Note an upload, on the proxy's own thread; all are held there until everybody has come."""
        if request.method == "PUT":
            arrived.release()
        return False

    proxy.fail(Failure.STALL, held)
    proxy.gate = everybody
    threads = [threading.Thread(target=storage.write, args=(f"k{number}", b"x")) for number in range(32)]
    for thread in threads:
        thread.start()
    assert all(arrived.acquire(timeout=10) for _ in threads)  # every one is under way before any has ended
    everybody.set()
    for thread in threads:
        thread.join()
    assert len(list(storage.list("k"))) == 32


class TestOpening:
    def test_a_missing_bucket(self, agola_s3):
        with pytest.raises(BadRequestError, match="'nobody' does not exist"):
            agola_core.open_storage(agola_s3.url(bucket="nobody", create_bucket="false"))

    def test_no_server(self, agola_s3):
        from agola_pytest.servers.etcd import free_ports

        url = agola_s3.url(endpoint=f"http://127.0.0.1:{free_ports(1)[0]}", attempts=2)
        with pytest.raises(UnavailableError, match="cannot be reached"):
            agola_core.open_storage(url)

    def test_a_server_that_says_nothing(self, agola_s3):
        with S3Proxy(agola_s3) as proxy:
            proxy.fail(Failure.STALL)
            with pytest.raises(DeadlineError, match="in time"):
                agola_core.open_storage(proxy.url(request_timeout=0.3, timeout=1, attempts=2))

    @pytest.mark.parametrize(
        ("failure", "error", "message"),
        [
            (Failure.DENIED, ForbiddenError, "AccessDenied"),
            (Failure.SKEWED, UnavailableError, "clock"),
            (Failure.ELSEWHERE, BadRequestError, "another region"),
        ],
        ids=lambda value: getattr(value, "name", ""),
    )
    def test_a_server_that_refuses(self, agola_s3, failure, error, message):
        with S3Proxy(agola_s3) as proxy:
            proxy.fail(failure)
            with pytest.raises(error, match=message):
                agola_core.open_storage(proxy.url())

    def test_wrong_credentials(self, tmp_path, monkeypatch, pytestconfig):
        try:
            with start_s3(tmp_path, S3Program.RCLONE) as server:
                agola_core.open_storage(server.url()).close()
                monkeypatch.setenv(f"{server.credentials}_SECRET_ACCESS_KEY", "canary-secret")
                with pytest.raises(ForbiddenError, match="SignatureDoesNotMatch") as caught:
                    agola_core.open_storage(server.url())
                assert "canary" not in f"{caught.value} {caught.value.__cause__}"
                monkeypatch.setenv(f"{server.credentials}_ACCESS_KEY_ID", "canary-key")
                with pytest.raises(ForbiddenError, match="InvalidAccessKeyId"):
                    agola_core.open_storage(server.url())
                monkeypatch.delenv(f"{server.credentials}_ACCESS_KEY_ID")
                with pytest.raises(BadRequestError, match=f"no {server.credentials}_ACCESS_KEY_ID"):
                    agola_core.open_storage(server.url())
        except S3MissingError as error:
            require.missing(pytestconfig, "s3", str(error))


@pytest.mark.parametrize("moment", ["idle", "while it syncs"])
@pytest.mark.parametrize("durability", ["coordinator", "storage"])
def test_a_storage_that_does_not_answer_is_not_waited_for_at_the_close(
    proxy, tmp_path, monkeypatch, caplog, moment, durability
):
    """Its timeouts are longer than a test: what it lacks stays in the coordinator."""
    monkeypatch.setattr(maintenance_tasks, "PATIENCE_SECONDS", 0.3)
    where = {
        "storage": proxy.url(f"close-{durability}-{moment[:4]}", request_timeout=900, timeout=900),
        "coordinator": f"sqlite:///{tmp_path}/coordinator.db",
    }
    stalled = threading.Event()
    options = Options(sync_interval=0.01 if moment != "idle" else 3600)
    dm = agola_core.open(**where, data_types=["note"], durability=durability, options=options)
    dm.write_wal([Put("note", "a", b"1")])
    dm.sync()
    proxy.fail(Failure.STALL, lambda request: not stalled.set())
    if durability == "coordinator":
        dm.write_wal([Put("note", "b", b"2")])
    else:
        with pytest.raises(DeadlineError, match="is committed"):
            dm.write_wal([Put("note", "b", b"2")], timeout=0.1)
    if moment != "idle":
        stalled.wait()
    dm.close()
    assert "the last changes stay in the coordinator alone until the next start" in caplog.text
    proxy.heal()
    with agola_core.open(**where) as dm:
        assert [data for _, data in dm.list_objects("note")] == [b"1", b"2"]
        assert dm.sync() == dm.sequence
