"""An etcd that was wiped, replaced or set back is refused for good, never silently continued."""

import pytest

from agola_core.errors import (
    RecoveryError,
)
from agola_pytest.faults.tcp_proxy import BreakableProxy
from agola_pytest.servers.etcd import coordinator_url, start_etcd
from tests.support.etcd import eventually, put


def test_a_wiped_etcd_is_refused_for_good(own_etcd, opened):
    coordinator = opened(own_etcd.url("wiped", timeout=20))
    for _ in range(5):
        put(coordinator, "a")
    watch = coordinator.watch("", put(coordinator, "a") + 1)
    own_etcd.kill()
    own_etcd.wipe()
    own_etcd.start()
    with pytest.raises(RecoveryError, match="went back from revision"):
        eventually(lambda: coordinator.get("a"))
    refused = []
    for _ in range(2):
        with pytest.raises(RecoveryError) as raised:
            put(coordinator, "a")
        refused.append(raised.value)
    assert refused[0] is not refused[1]  # one error raised by every request keeps the frames of all of them
    with pytest.raises(RecoveryError):
        watch.next(30)
    fresh = opened(own_etcd.url("wiped"))
    for _ in range(10):  # also once its revisions are beyond what was seen
        put(fresh, "a")
    with pytest.raises(RecoveryError):
        coordinator.get("a")


def test_a_watch_notices_another_history_by_itself(own_etcd, opened):
    coordinator = opened(own_etcd.url("forked", timeout=20))
    for number in range(5):
        put(coordinator, "a", b"%d" % number)
    with coordinator.watch("", 1) as watch:
        while watch.next(10).revision < coordinator.get("a").mod_revision:
            pass
        own_etcd.kill()
        own_etcd.wipe()
        own_etcd.start()
        fresh = opened(own_etcd.url("forked"))
        for _ in range(10):
            put(fresh, "a", b"other")
        with pytest.raises(RecoveryError):
            list(iter(lambda: watch.next(30), None))


def test_another_cluster_at_the_same_address_is_refused(tmp_path, own_etcd, opened):
    with (
        start_etcd(tmp_path / "other", arguments=["--initial-cluster-token=other"]) as other,
        BreakableProxy(own_etcd.endpoint) as proxy,
    ):
        coordinator = opened(coordinator_url(proxy.endpoint, "swapped", timeout=20))
        revision = put(coordinator, "a")
        ahead = opened(other.url("swapped"))
        while put(ahead, "a") < revision + 5:
            pass
        proxy.turn_to(other.endpoint)
        with pytest.raises(RecoveryError, match="another cluster answers"):
            eventually(lambda: coordinator.get("a"))
