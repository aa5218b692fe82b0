"""Users, passwords and certificates of the etcd coordinator."""

import subprocess
import threading

import pytest

from agola_core.coordinator.etcd import messages as rpc
from agola_core.errors import (
    AccessDeniedError,
    AuthenticationError,
    UnavailableError,
)
from agola_pytest.servers.etcd import control, start_etcd
from tests.support.etcd import eventually, eventually_true, in_background, put


@pytest.fixture
def guarded_etcd(own_etcd, monkeypatch):
    """An etcd with users: `ci` may do anything below `ci/`, and nothing elsewhere."""
    monkeypatch.setenv("CI_PASSWORD", "correct horse")
    guard(own_etcd)
    return own_etcd


def guard(server):
    """Give an etcd users: `root`, and `ci`, who may do anything below `ci/`."""
    for command in (
        ["user", "add", "root:root"],
        ["user", "grant-role", "root", "root"],
        ["role", "add", "ci"],
        ["role", "grant-permission", "ci", "--prefix=true", "readwrite", "ci/"],
        ["user", "add", "ci:correct horse"],
        ["user", "grant-role", "ci", "ci"],
        ["auth", "enable"],
    ):
        control(*command, endpoint=server.endpoint)


def test_users_and_passwords(guarded_etcd, monkeypatch, opened):
    coordinator = opened(guarded_etcd.url("ci", user="ci", password_env="CI_PASSWORD"))
    revision = put(coordinator, "a")
    with coordinator.watch("", revision) as watch:
        assert watch.next(10).revision == revision
    with pytest.raises(AccessDeniedError, match="permission denied"):
        opened(guarded_etcd.url("other", user="ci", password_env="CI_PASSWORD"))
    with pytest.raises(AuthenticationError, match="user name is empty"):
        opened(guarded_etcd.url("ci"))
    monkeypatch.setenv("CI_PASSWORD", "wrong")
    with pytest.raises(AuthenticationError, match="invalid user ID or password"):
        opened(guarded_etcd.url("ci", user="ci", password_env="CI_PASSWORD"))


def test_an_expired_login_is_renewed(guarded_etcd, opened):
    coordinator = opened(guarded_etcd.url("ci", user="ci", password_env="CI_PASSWORD", timeout=20))
    watch = coordinator.watch("", put(coordinator, "a") + 1)
    guarded_etcd.kill()  # etcd keeps its tokens in memory, so they are all invalid afterwards
    guarded_etcd.start()
    assert eventually(lambda: coordinator.get("a")).version == 1
    assert put(coordinator, "a") == watch.next(30).revision
    control("role", "revoke-permission", "ci", "ci/", "ci0", "--user=root:root", endpoint=guarded_etcd.endpoint)
    with pytest.raises(AccessDeniedError):
        coordinator.get("a")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_watch_that_loses_its_right_ends_alone(guarded_etcd, opened, monkeypatch, when):
    """The right goes before or after etcd has confirmed the watch on a new stream."""
    coordinator = opened(guarded_etcd.url("ci", user="ci", password_env="CI_PASSWORD", timeout=30))
    start = put(coordinator, "start") + 1
    lost, kept = coordinator.watch("a/", start), coordinator.watch("b/", start)
    for watch, key in ((lost, "a/0"), (kept, "b/0")):
        put(coordinator, key)
        assert watch.next(30) is not None
    check, revoked = coordinator._watches._check_history, threading.Event()

    def revoke():
        role = ("role", "grant-permission", "ci", "--prefix=true", "readwrite", "ci/b/")
        control(*role, "--user=root:root", endpoint=guarded_etcd.endpoint)
        control("role", "revoke-permission", "ci", "ci/", "ci0", "--user=root:root", endpoint=guarded_etcd.endpoint)
        revoked.set()

    def late(watch, revision):
        if watch is lost and not revoked.is_set():
            revoke()
        check(watch, revision)

    if when == "after":
        monkeypatch.setattr(coordinator._watches, "_check_history", late)
    else:
        revoke()
    coordinator._watches._stream.call.cancel()  # as a connection ends: the next stream asks for both
    with pytest.raises(AccessDeniedError):
        lost.next(60)
    control("put", "ci/b/1", "x", "--user=root:root", endpoint=guarded_etcd.endpoint)
    batch = kept.next(60)
    assert [event.key for event in batch.events] == ["b/1"]


def test_nobody_is_refused_while_another_logs_in_again(guarded_etcd, opened):
    coordinator = opened(guarded_etcd.url("ci", user="ci", password_env="CI_PASSWORD", timeout=30))
    put(coordinator, "a")
    client = coordinator._client
    client._token = "lost.1"
    ask, begun, go_on = client.ask, threading.Event(), threading.Event()

    def slowly(method, request, timeout=None):
        if method is rpc.AUTHENTICATE:
            begun.set()
            assert go_on.wait(30)
        return ask(method, request, timeout)

    client.ask = slowly
    writers = [in_background(lambda number=number: put(coordinator, f"k{number}")) for number in range(4)]
    assert begun.wait(30)  # one logs in, and only then the others meet the lost token
    late = [in_background(lambda number=number: put(coordinator, f"l{number}")) for number in range(4)]
    reader, read = in_background(lambda: coordinator.get("a"))
    reader.join(0.3)
    assert not read
    go_on.set()
    for thread, _ in [*writers, *late]:
        thread.join(30)
    reader.join(30)
    assert read[0].version == 1
    assert all(isinstance(outcome[0], int) for _, outcome in [*writers, *late]), [*writers, *late]


def test_a_member_that_restarts_again_and_again_refuses_nobody(guarded_etcd, opened):
    coordinator = opened(guarded_etcd.url("ci", user="ci", password_env="CI_PASSWORD", timeout=30))
    watch = coordinator.watch("", put(coordinator, "start") + 1)
    stop = threading.Event()
    revisions, errors = [], []

    def write(writer):
        number = 0
        while not stop.is_set():
            try:
                revisions.append(put(coordinator, f"{writer}-{number}"))
            except Exception as error:
                errors.append(error)
            number += 1

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        before = len(revisions)
        guarded_etcd.kill()
        guarded_etcd.start()
        eventually_true(lambda before=before: len(revisions) > before + 20)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert [watch.next(30).revision for _ in revisions] == sorted(revisions)


def test_a_watch_whose_token_is_lost_twice_goes_on(guarded_etcd, opened):
    """A stream that is refused for its token alone is no sign of a missing right, however often it happens."""
    coordinator = opened(guarded_etcd.url("ci", user="ci", password_env="CI_PASSWORD", timeout=30))
    watch = coordinator.watch("", put(coordinator, "a") + 1)
    ask = coordinator._client.ask
    lost = []

    def forget(method, request, timeout=None):
        answer = ask(method, request, timeout)
        if len(lost) < 3:  # what it has just got is worth nothing any more
            lost.append(coordinator._client._token)
            coordinator._client._token = "lost.1"
        return answer

    coordinator._client._token = "lost.1"
    coordinator._client.ask = forget
    guarded_etcd.kill()
    guarded_etcd.start()
    eventually_true(lambda: len(lost) == 3)
    assert put(coordinator, "b") == watch.next(30).revision


def test_a_user_where_there_are_none_is_told(own_etcd, monkeypatch, opened):
    monkeypatch.setenv("CI_PASSWORD", "x")
    with pytest.raises(AuthenticationError, match="authentication is not enabled"):
        opened(own_etcd.url("ci", user="ci", password_env="CI_PASSWORD"))


def openssl(directory, *arguments):
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def certificates(directory):
    """Make a certificate authority, and certificates of a server and a client that it signed."""
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(directory, "req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test-ca")
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl(directory, "req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(
            directory,
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-out", f"{name}.pem", "-extfile", "names"),
        )


def test_encrypted_connections_with_certificates_on_both_sides(tmp_path, etcd_programs, opened):
    certificates(tmp_path)
    arguments = [
        f"--cert-file={tmp_path}/server.pem",
        f"--key-file={tmp_path}/server.key",
        f"--trusted-ca-file={tmp_path}/ca.pem",
        "--client-cert-auth",
    ]
    client = {"cert": tmp_path / "client.pem", "key": tmp_path / "client.key"}
    with start_etcd(tmp_path / "etcd", arguments=arguments, scheme="https") as server:
        coordinator = opened(server.url("tls", ca=tmp_path / "ca.pem", **client))
        assert coordinator.get("a") is None
        with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            opened(server.url("tls", tls="true", timeout=1, **client))
        with pytest.raises(UnavailableError, match=server.endpoint):
            opened(server.url("tls", timeout=1))
        with pytest.raises(UnavailableError, match=server.endpoint):
            opened(server.url("tls", timeout=1, ca=tmp_path / "ca.pem"))
