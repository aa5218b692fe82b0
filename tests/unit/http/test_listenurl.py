"""The rule of executors' listen URLs."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agola_core.errors import BadRequestError, ForbiddenError
from agola_http.outbound.listen_policy import LOCAL_NETWORKS, ListenPolicy, Target

POLICY = ListenPolicy()


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://127.0.0.1:4001", Target("http", "127.0.0.1", 4001)),
        ("http://10.1.2.3:4001/", Target("http", "10.1.2.3", 4001)),
        ("https://executor-1.example.org/below/", Target("https", "executor-1.example.org", 443, "/below")),
        ("http://[::1]:80", Target("http", "::1", 80)),
        ("http://[::ffff:192.168.0.1]:80", Target("http", "::ffff:192.168.0.1", 80)),
    ],
)
def test_what_executors_report(url, target):
    assert POLICY.parse(url) == target


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:4001",
        "http://",
        "http://host:99999",
        "http://host:0",
        "http://host:x",
        "http://user@10.0.0.1",
        "http://10.0.0.1@evil.example",
        "http://10.0.0.1?x",
        "http://10.0.0.1#x",
        "http://10.0.0.1\\@evil.example",
        "http://10.0.0.1\n",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://127.1/",
        "http://127.0.0.0x1/",
        "http://%31%30.0.0.1/",
        "http://1.2.3.4%40evil/",
        "http://[fe80::1%25eth0]/",
    ],
)
def test_what_is_no_listen_url(url):
    with pytest.raises(BadRequestError):
        POLICY.parse(url)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://10.0.0.1/",
        "unix://run/docker.sock",
        "http://8.8.8.8/",
        "http://169.254.169.254/latest",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:a9fe:a9fe::]/",
        "http://[fd00:ec2::254]/",
        "http://[fe80::1]/",
        "http://224.0.0.1/",
    ],
)
def test_what_must_not_be_reached(url):
    with pytest.raises((ForbiddenError, BadRequestError)):
        POLICY.parse(url)


def test_every_address_of_a_name_must_be_allowed():
    target = POLICY.parse("http://executor:4001")
    good, bad = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("169.254.169.254")
    assert POLICY.pick(target, [good]) == good
    for addresses in ([], [bad], [good, bad], [bad, good]):
        with pytest.raises(ForbiddenError):
            POLICY.pick(target, addresses)
    assert target.url_at(good) == "http://10.0.0.1:4001"
    assert target.url_at(ipaddress.ip_address("fd00::1")) == "http://[fd00::1]:4001"


def test_metadata_services_stay_refused_where_everything_is_allowed():
    policy = ListenPolicy(["0.0.0.0/0", "::/0"])
    assert policy.parse("http://8.8.8.8")
    for address in ("169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "[::ffff:a9fe:a9fe]"):
        with pytest.raises(ForbiddenError):
            policy.parse(f"http://{address}/")


def test_networks_and_schemes_can_be_narrowed():
    policy = ListenPolicy(["10.7.0.0/16"], schemes=["https"])
    assert policy.parse("https://10.7.1.1")
    for url in ("https://10.8.1.1", "http://10.7.1.1"):
        with pytest.raises(ForbiddenError):
            policy.parse(url)
    with pytest.raises(BadRequestError):
        ListenPolicy(["10.0.0.0/99"])


@given(st.text(max_size=60) | st.from_regex(r"https?://[0-9a-fx:.\[\]@/%]{1,40}", fullmatch=True))
def test_no_url_leads_to_an_address_outside(url):
    try:
        target = POLICY.parse(url)
    except (BadRequestError, ForbiddenError):
        return
    try:
        address = ipaddress.ip_address(target.host)
    except ValueError:
        return
    meant = getattr(address, "ipv4_mapped", None) or address
    networks = map(ipaddress.ip_network, LOCAL_NETWORKS)
    assert any(meant.version == network.version and meant in network for network in networks) or address.version == 6
