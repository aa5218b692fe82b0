"""Azure (Azurite) behind a proxy that fails: what a caller is told is what was done, and no signature is in it."""

import contextlib
import uuid
from urllib.parse import urlsplit

import pytest

import agola_core
from agola_core.errors import (
    BadRequestError,
    ConflictError,
    DeadlineError,
    ForbiddenError,
    NotFoundError,
    UnavailableError,
)
from agola_core.objectstorage.cloud.outcomes import row_of
from agola_core.objectstorage.cloud.url import parse_cloud_url
from agola_pytest.faults.s3_proxy import Failure, S3Proxy
from agola_pytest.servers.s3 import S3Server
from tests.support import clouds

needs_azurite = pytest.mark.skipif(not clouds.program("az"), reason="there is no Azurite: npm install azurite")
ROWS = {
    Failure.RESET_BEFORE: "no answer in time, or a broken one",
    Failure.SERVER_ERROR: "5xx",
    Failure.GATEWAY: "5xx",
    Failure.THROTTLED: "408 or 429",
}
WRITES = {
    "put": lambda storage: storage.write("key", b"new"),
    "create": lambda storage: storage.write("key", b"new", if_absent=True),
}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    with clouds.start_cloud("az", tmp_path_factory.mktemp("az")) as url:
        server = urlsplit(parse_cloud_url(url("x")).endpoint)
        with S3Proxy(S3Server(f"http://{server.netloc}")) as proxy:
            yield proxy


@pytest.fixture
def storage(proxy):
    url = f"az://{clouds.BUCKET}/{uuid.uuid4().hex}?account={clouds.ACCOUNT}&attempts=2&request_timeout=5"
    with contextlib.closing(agola_core.open_storage(f"{url}&endpoint={proxy.endpoint}/{clouds.ACCOUNT}")) as storage:
        yield storage
        proxy.heal()


def is_write(request):
    return request.method == "PUT"


@needs_azurite
@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("failure", ROWS, ids=lambda failure: failure.name)
def test_writes_that_fail(proxy, storage, failure, name):
    proxy.fail(failure, is_write, applied=True)  # the answer lies
    WRITES[name](storage)
    proxy.heal()
    assert storage.read("key") == b"new"
    storage.delete("key")

    proxy.fail(failure, is_write)
    with pytest.raises(UnavailableError) as caught:
        WRITES[name](storage)
    assert row_of(caught.value.__cause__).name == ROWS[failure]
    proxy.heal()
    assert list(storage.list()) == []

    proxy.fail(failure, is_write, times=1)
    WRITES[name](storage)
    assert storage.read("key") == b"new"
    with pytest.raises(ConflictError):
        WRITES["create"](storage)


@needs_azurite
def test_refusals_and_silence_are_typed_and_tell_no_signature(proxy, storage):
    storage.write("key", b"old")
    proxy.fail(Failure.DENIED)
    with pytest.raises(ForbiddenError, match="AccessDenied") as caught:
        storage.read("key")
    assert "http" not in f"{caught.value} {caught.value.__cause__}"
    proxy.heal()
    proxy.flip = True
    with pytest.raises(UnavailableError, match="other bytes"):
        storage.read("key")
    proxy.flip = False
    proxy.away()
    with pytest.raises(UnavailableError, match="cannot be reached") as away:
        storage.read("key")
    assert row_of(away.value.__cause__).name == "no connection"
    proxy.back()
    assert storage.read("key") == b"old"


@needs_azurite
def test_a_service_that_says_nothing(proxy):
    url = f"az://{clouds.BUCKET}/x?account={clouds.ACCOUNT}&attempts=1&request_timeout=0.3"
    proxy.fail(Failure.STALL)
    with pytest.raises(DeadlineError, match="in time"):
        agola_core.open_storage(f"{url}&endpoint={proxy.endpoint}/{clouds.ACCOUNT}")
    proxy.heal()


@needs_azurite
def test_opening(proxy, monkeypatch):
    at = f"account={clouds.ACCOUNT}&endpoint={proxy.endpoint}/{clouds.ACCOUNT}&attempts=1"
    with pytest.raises(BadRequestError, match="'nobody' does not exist"):
        agola_core.open_storage(f"az://nobody?{at}")
    with pytest.raises(BadRequestError, match="no option 'canary'"):
        agola_core.open_storage(f"az://{clouds.BUCKET}?{at}&canary=1")
    with pytest.raises(BadRequestError, match=r"option tls_ca: /none/ca.pem"):
        agola_core.open_storage(f"az://{clouds.BUCKET}?{at}&tls_ca=/none/ca.pem")
    with contextlib.closing(agola_core.open_storage(f"az://{clouds.BUCKET}/y?{at}")) as storage:
        with pytest.raises(BadRequestError, match="component"):
            storage.write("a//b", b"")
        with pytest.raises(NotFoundError):
            storage.read("none")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "Y2FuYXJ5")
    with pytest.raises(ForbiddenError) as caught:
        agola_core.open_storage(f"az://{clouds.BUCKET}?{at}")
    assert "Y2FuYXJ5" not in f"{caught.value} {caught.value.__cause__}"
