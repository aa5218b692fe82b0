"""What an etcd coordinator's URL may say, and how each mistake is told."""

import pytest

from agola_core.coordinator import open_coordinator
from agola_core.coordinator.etcd.settings import parse_url
from agola_core.errors import BadRequestError, UnavailableError


def test_a_url_names_endpoints_and_a_prefix():
    settings = parse_url("etcd://h1:2379,h2,[::1]:4001/team/store/?timeout=2.5")
    assert settings.endpoints == ("h1:2379", "h2:2379", "[::1]:4001")
    assert settings.prefix == b"team/store/"
    assert settings.timeout == 2.5
    assert not settings.tls
    assert parse_url("etcd://h1").prefix == b""


def test_files_and_the_password_are_read(tmp_path, monkeypatch):
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_bytes(name.encode())
    monkeypatch.setenv("ETCD_PASSWORD", "hunter2")
    settings = parse_url(
        f"etcd://h1?ca={tmp_path}/ca&cert={tmp_path}/cert&key={tmp_path}/key&user=ci&password_env=ETCD_PASSWORD"
    )
    assert settings.tls
    assert (settings.ca, settings.cert, settings.key) == (b"ca", b"cert", b"key")
    assert (settings.user, settings.password) == ("ci", "hunter2")
    assert "hunter2" not in repr(settings)
    assert parse_url("etcd://h1?tls=true").tls


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("etcd://:1", "':1' is not HOST:PORT"),
        ("etcd://h1:99999", "'h1:99999' is not HOST:PORT"),
        ("etcd://h1,,h2", "'' is not HOST:PORT"),
        ("etcd://h1?tmieout=3", "unknown parameter 'tmieout'; known are ca, cert, key, password_env, timeout"),
        ("etcd://h1?timeout=never", "timeout=never: expected seconds"),
        ("etcd://h1?timeout=0", "timeout=0: expected seconds"),
        ("etcd://h1?timeout=1&timeout=2", "'timeout' is given twice"),
        ("etcd://h1?timeout", "not a list of NAME=VALUE"),
        ("etcd://h1?ca=", "'ca' is empty"),
        ("etcd://h1?ca=/nowhere/ca.pem", "cannot read ca=/nowhere/ca.pem: No such file"),
        ("etcd://h1?tls=maybe", "tls=maybe: expected true or false"),
        ("etcd://ci:hunter2@h1", "not before the hosts"),
        ("etcd://h1?user=ci", "user and password_env go together"),
        ("etcd://127.0.0.1?user=ci&password_env=NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE, which password_env names"),
        ("etcd://", "expected a path, sqlite:///PATH or etcd://"),
        ("zookeeper://h1", "expected a path, sqlite:///PATH or etcd://"),
    ],
)
def test_a_wrong_url_is_told_in_one_line(url, told):
    with pytest.raises(BadRequestError) as error:
        open_coordinator(url)
    assert told in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_certificate_goes_with_its_key(tmp_path):
    (tmp_path / "cert").write_bytes(b"")
    with pytest.raises(BadRequestError, match="cert and key go together"):
        parse_url(f"etcd://h1?cert={tmp_path}/cert")


def test_a_password_goes_to_another_machine_only_encrypted(monkeypatch):
    monkeypatch.setenv("ETCD_PASSWORD", "hunter2")
    with pytest.raises(BadRequestError, match="only encrypted"):
        parse_url("etcd://h1?user=ci&password_env=ETCD_PASSWORD")
    assert parse_url("etcd://127.0.0.1:1?user=ci&password_env=ETCD_PASSWORD").user == "ci"


def test_an_unreachable_cluster_fails_in_time_and_names_its_endpoints():
    with pytest.raises(UnavailableError) as error:
        open_coordinator("etcd://127.0.0.1:1,127.0.0.1:2?timeout=0.5")
    assert "127.0.0.1:1, 127.0.0.1:2 did not answer within 0.5 s" in str(error.value)
    assert "Connection refused" in str(error.value)
