"""Users, passwords and certificates of the etcd coordinator."""

import subprocess

import pytest

from agola_core.errors import (
    AccessDeniedError,
    AuthenticationError,
    UnavailableError,
)
from agola_pytest.etcd import control, start_etcd
from tests.support.etcd import eventually, put


@pytest.fixture
def guarded_etcd(own_etcd, monkeypatch):
    """An etcd with users: `ci` may do anything below `ci/`, and nothing elsewhere."""
    monkeypatch.setenv("CI_PASSWORD", "correct horse")
    for command in (
        ["user", "add", "root:root"],
        ["user", "grant-role", "root", "root"],
        ["role", "add", "ci"],
        ["role", "grant-permission", "ci", "--prefix=true", "readwrite", "ci/"],
        ["user", "add", "ci:correct horse"],
        ["user", "grant-role", "ci", "ci"],
        ["auth", "enable"],
    ):
        control(*command, endpoint=own_etcd.endpoint)
    return own_etcd


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
