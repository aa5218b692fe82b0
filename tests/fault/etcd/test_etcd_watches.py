"""Watches of the etcd coordinator over restarts, silence, broken ways, compaction and large answers."""

import os

import pytest

from agola_core.coordinator import DeleteOp, PutOp
from agola_core.coordinator.etcd import messages as rpc
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
    caplog.set_level("DEBUG", "agola_core.coordinator.etcd.watch_stream")
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
        assert f"etcd at {silent.endpoint} was silent for 2 s" in caplog.text
        silent.resume()


def test_a_member_that_is_away_costs_a_watch_no_more_each_time(agola_etcd, proxy, opened, monkeypatch):
    """One that has not answered is given up soon, however often; one that must read much for its answer gets longer."""
    monkeypatch.setattr("agola_core.coordinator.etcd.watch_stream._SILENT_SECONDS", 0.2)
    coordinator = opened(agola_etcd.through(proxy.endpoint).url("away"))
    coordinator.watch("", put(coordinator, "a") + 1)  # other tests compact what was before
    proxy.drop_answers()
    ended, watches = [], coordinator._watches
    stream = watches._stream
    while len(ended) < 4:  # each try ends as silent
        eventually_true(lambda: watches._stream is not stream and watches._stream is not None)  # noqa: B023
        stream = watches._stream
        ended.append(stream)
    assert [watches._patience_with(one) for one in ended[1:]] == [0.2] * 3
    proxy.heal()


def test_a_watch_comes_back_when_the_way_breaks_both_ways(agola_etcd, proxy, opened):
    direct = opened(agola_etcd.url("ways"))
    behind = opened(agola_etcd.through(proxy.endpoint).url("ways"))
    start = put(direct, "a") + 1
    watch, others = behind.watch("", start), [behind.watch(key, start) for key in "abc"]
    expected = []
    for damage in (proxy.drop_answers, proxy.drop_requests, proxy.refuse, proxy.cut):
        damage()
        expected += [put(direct, "a"), put(direct, "b")]
        proxy.heal()
        expected.append(put(direct, "c"))
        assert [watch.next(30).revision for _ in range(3)] == expected[-3:]
        assert [other.next(30).revision for other in others] == expected[-3:]  # each goes on where it was


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


def test_watches_share_a_stream_and_a_slow_one_keeps_no_other_waiting(agola_etcd, opened, monkeypatch):
    monkeypatch.setattr("agola_core.coordinator.etcd.watch._KEPT_BATCHES", 8)
    coordinator = opened(agola_etcd.url("shared"))
    start, streams = coordinator._client.watch, []
    monkeypatch.setattr(coordinator._client, "watch", lambda *args: streams.append(start(*args)) or streams[-1])
    first = put(coordinator, "start") + 1
    slow, quick, closed = (coordinator.watch(prefix, first) for prefix in ("slow/", "quick/", ""))
    closed.close()
    sent = []
    for number in range(40):  # the slow one leaves the stream after 8
        sent.append(put(coordinator, f"slow/{number}"))
        revision = put(coordinator, f"quick/{number}")
        assert quick.next(30).revision == revision
    eventually_true(lambda: slow.left)
    assert [slow.next(30).revision for _ in sent] == sent  # it comes back, more than once
    assert slow.next(0) is None
    assert len(streams) == 1
    slow.close()
    quick.close()
    eventually_true(lambda: coordinator._watches._thread is None)  # they end with the last watch
    with coordinator.watch("slow/", sent[-1]) as again:
        assert again.next(30).revision == sent[-1]


def test_a_watch_that_comes_back_when_it_is_on_the_stream_loses_no_part_of_a_transaction(
    agola_etcd, opened, monkeypatch
):
    """Its consumer made room before it was taken off the stream, or after a reconnection had brought it back."""
    coordinator = opened(agola_etcd.url("back"))
    watch = coordinator.watch("k", put(coordinator, "start") + 1)
    put(coordinator, "k0")
    assert watch.next(30) is not None
    keys, item, read = watch._keys, watch._keys.item, []

    def late(found):  # the call arrives while the stream's thread has taken one of three events
        read.append(found)
        if len(read) == 2:
            coordinator._watches._resume(watch)
        return item(found)

    monkeypatch.setattr(keys, "item", late)
    names = ["k1", "k2", "k3"]
    revision = coordinator.txn([], [PutOp(name, b"") for name in names]).revision
    batch = watch.next(30)
    assert (batch.revision, [event.key for event in batch.events]) == (revision, names)
    revision = put(coordinator, "k4")
    assert watch.next(30).revision == revision


def test_a_stream_for_which_there_is_no_thread_and_a_foreign_key_end_no_watch(agola_etcd, opened, monkeypatch):
    coordinator = opened(agola_etcd.url("odd"))
    start, failures = coordinator._client.watch, [RuntimeError("can't start new thread")]
    monkeypatch.setattr("agola_core.coordinator.etcd.watch_stream._LONGEST_PAUSE", 0.01)

    def without_a_thread(*args):
        if failures:
            raise failures.pop()  # as gRPC does
        return start(*args)

    monkeypatch.setattr(coordinator._client, "watch", without_a_thread)
    watch = coordinator.watch("", put(coordinator, "start") + 1)
    revision = put(coordinator, "a")
    assert watch.next(30).revision == revision
    foreign = rpc.PutRequest(key=coordinator._keys.encode("b") + b"\xfe", value=b"somebody else's")
    request = rpc.TxnRequest(success=[rpc.RequestOp(request_put=foreign)])
    revision = coordinator._client.ask(rpc.TXN, request).header.revision
    assert watch.next(30).revision == revision
    coordinator._watches._stream.end()  # on the next one the watch's last key is compared
    revision = put(coordinator, "c")
    assert watch.next(30).revision == revision


def test_a_compaction_ends_only_the_watch_that_needs_what_is_gone(agola_etcd, opened, monkeypatch):
    monkeypatch.setattr("agola_core.coordinator.etcd.watch._KEPT_BATCHES", 4)
    coordinator = opened(agola_etcd.url("one-compacted"))
    first = put(coordinator, "start") + 1
    slow, quick = coordinator.watch("slow/", first), coordinator.watch("quick/", first)
    revision = put(coordinator, "quick/0")
    assert quick.next(30).revision == revision  # both are up to date: the following come one by one
    sent = [put(coordinator, f"slow/{number}") for number in range(12)]
    eventually_true(lambda: slow.left)
    coordinator.compact(put(coordinator, "end"))
    seen = []
    with pytest.raises(CompactedError):
        seen.extend(batch.revision for batch in iter(lambda: slow.next(30), None))
    assert seen == sent[: len(seen)]
    assert quick.next(0) is None
    revision = put(coordinator, "quick/1")
    assert quick.next(30).revision == revision


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
