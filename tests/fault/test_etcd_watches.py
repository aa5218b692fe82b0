"""Watches of the etcd coordinator over restarts, silence, broken ways, compaction and large answers."""

import os

import pytest

from agola_core.coordinator import DeleteOp, PutOp
from agola_core.errors import CompactedError
from agola_pytest.servers.etcd import coordinator_url
from agola_pytest.servers.etcd_cluster import start_etcd_cluster
from tests.support.etcd import eventually, eventually_true, put, settled_put


def test_a_watch_loses_nothing_over_restarts(own_etcd, opened):
    coordinator = opened(own_etcd.url("restarts", timeout=20))
    watch = coordinator.watch("", put(coordinator, "start") + 1)
    expected = []
    for number in range(15):
        if number % 5 == 4:
            own_etcd.kill()
            own_etcd.start()
        expected.append(settled_put(coordinator, f"k{number}"))
    assert [watch.next(30).revision for _ in expected] == expected
    assert watch.next(0) is None


def test_a_silent_watch_is_noticed_and_goes_on_elsewhere(tmp_path, etcd_programs, opened, caplog, monkeypatch):
    monkeypatch.setattr("agola_core.coordinator.etcd.client._CHANNEL_OPTIONS", ())  # the transport notices nothing
    caplog.set_level("DEBUG", "agola_core.coordinator.etcd.watch")
    with start_etcd_cluster(tmp_path) as cluster:
        reader = opened(cluster.url("silent", timeout=20))
        start, asked = reader._client.watch, []
        monkeypatch.setattr(reader._client, "watch", lambda *args: asked.append(start(*args)) or asked[-1])
        watch = reader.watch("", eventually(lambda: put(reader, "a")) + 1)
        eventually(lambda: put(reader, "a"))
        assert watch.next(60) is not None
        silent = next(member for member in cluster.members if member.endpoint == asked[-1][1])  # a slow start moves it
        others = ",".join(member.endpoint for member in cluster.members if member is not silent)
        writer = opened(coordinator_url(others, "silent", timeout=60))
        caplog.clear()
        silent.pause()  # its connections stay open and say nothing
        revision = put(writer, "a")
        while (batch := watch.next(60)) is not None and batch.revision < revision:
            pass
        assert batch is not None
        assert f"etcd at {silent.endpoint} was silent for 2.5 s" in caplog.text
        silent.resume()


def test_a_member_that_is_away_costs_a_watch_no_more_each_time(agola_etcd, proxy, opened, monkeypatch):
    """One that has not answered is given up soon, however often; one that must read much for its answer gets longer."""
    monkeypatch.setattr("agola_core.coordinator.etcd.watch._SILENT_SECONDS", 0.2)
    watch = opened(agola_etcd.through(proxy.endpoint).url("away")).watch("", 1)
    proxy.drop_answers()
    ended = []
    stream = watch._stream
    while len(ended) < 4:  # each try ends as silent
        eventually_true(lambda: watch._stream is not stream and watch._stream is not None)  # noqa: B023
        stream = watch._stream
        ended.append(stream)
    assert [watch._patience_with(one) for one in ended[1:]] == [0.2] * 3
    proxy.heal()


def test_a_watch_comes_back_when_the_way_breaks_both_ways(agola_etcd, proxy, opened):
    direct = opened(agola_etcd.url("ways"))
    watch = opened(agola_etcd.through(proxy.endpoint).url("ways")).watch("", put(direct, "a") + 1)
    expected = []
    for damage in (proxy.drop_answers, proxy.drop_requests, proxy.refuse, proxy.cut):
        damage()
        expected += [put(direct, "a"), put(direct, "b")]
        proxy.heal()
        expected.append(put(direct, "c"))
        assert [watch.next(30).revision for _ in range(3)] == expected[-3:]


def test_a_slow_watch_is_told_of_compaction_after_what_it_had(own_etcd, opened):
    coordinator = opened(own_etcd.url("slow"))
    start = put(coordinator, "a")
    watch = coordinator.watch("", start + 1)
    revisions = [put(coordinator, "a", os.urandom(200_000)) for _ in range(200)]
    coordinator.compact(revisions[-1])
    put(coordinator, "a", b"end")
    seen = []
    own_etcd.kill()  # what etcd had on its way to the watch would hide the compaction
    own_etcd.start()
    with pytest.raises(CompactedError) as error:
        seen.extend(batch.revision for batch in iter(lambda: watch.next(30), None))
    assert seen == revisions[: len(seen)]
    assert error.value.oldest >= revisions[-2]
    with coordinator.watch("", revisions[-1]) as again:
        assert again.next(10).revision == revisions[-1]


def test_a_large_transaction_comes_in_one_batch(agola_etcd, opened):
    coordinator = opened(agola_etcd.url("large"))
    before = put(coordinator, "start")
    revisions = []
    for _ in range(8):
        ops = [PutOp(f"k{number:03}", os.urandom(10_000)) for number in range(coordinator.max_txn_ops)]
        revisions.append(coordinator.txn([], ops).revision)
    with coordinator.watch("", before + 1) as watch:  # catching up, etcd sends these in fragments
        batches = [watch.next(30) for _ in revisions]
    assert [batch.revision for batch in batches] == revisions
    assert all([event.key for event in batch.events] == [op.key for op in ops] for batch in batches)


def test_lists_of_large_values_come_in_smaller_pages(agola_etcd, opened):
    coordinator = opened(agola_etcd.url("pages"))
    for number in range(40):
        put(coordinator, f"k{number:03}", bytes(1_200_000))
    page = coordinator.list("k")
    assert page.more
    assert 0 < len(page.items) < 40
    rest = coordinator.list("k", start_after=page.items[-1].key, revision=page.revision)
    assert rest.items[0].key == f"k{len(page.items):03}"
    for number in range(0, 40, 10):
        coordinator.txn([], [DeleteOp(f"k{number + index:03}") for index in range(10)])
