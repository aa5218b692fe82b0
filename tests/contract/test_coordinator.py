"""What every coordinator does: the second half of `agola_core.coordinator.port`."""

import multiprocessing
import threading
import uuid

import pytest

from agola_core.coordinator import (
    Compare,
    DeleteOp,
    DeleteRangeOp,
    GetOp,
    KeyValue,
    PutOp,
    Target,
    TxnResult,
    open_coordinator,
)
from agola_core.coordinator.etcd.coordinator import EtcdCoordinator
from agola_core.coordinator.lock import try_lock
from agola_core.coordinator.port import iterate, prefix_end
from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator
from agola_core.errors import BadRequestError, ClosedError, CompactedError, NotFoundError, UnavailableError
from tests.simulation.memory_coordinator import Cluster, MemoryCoordinator


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class SQLiteBackend:
    """Opens coordinators on one database, with a clock of the test's own."""

    def __init__(self, path):
        self.url = str(path)
        self.clock = Clock()
        self.opened = []

    def open(self):
        coordinator = SQLiteCoordinator(self.url, clock=self.clock)
        self.opened.append(coordinator)
        return coordinator

    def pass_time(self, seconds):
        self.clock.now += seconds
        for coordinator in self.opened[:1]:
            coordinator.expire_leases()


class EtcdBackend:
    """Opens coordinators on one etcd; it does what etcd does when a lease's time is over: it revokes the lease."""

    def __init__(self, url):
        self.url = url
        self.clock = Clock()
        self.opened = []
        self.leases = {}

    def open(self):
        backend = self

        class Timed(EtcdCoordinator):
            def grant_lease(self, ttl):
                lease = super().grant_lease(ttl)
                backend.leases[lease] = (backend.clock.now + ttl, ttl)
                return lease

            def keep_alive(self, lease):
                left = super().keep_alive(lease)
                if left:
                    backend.leases[lease] = (backend.clock.now + backend.leases[lease][1], backend.leases[lease][1])
                return left

        coordinator = Timed(self.url)
        self.opened.append(coordinator)
        return coordinator

    def pass_time(self, seconds):
        self.clock.now += seconds
        for lease, (deadline, _) in self.leases.items():
            if deadline <= self.clock.now:
                self.opened[0].revoke_lease(lease)


class MemoryBackend:
    """Opens clients of one cluster in memory, of this process alone, with a clock of the test's own."""

    def __init__(self, identity):
        self.url = None
        self.clock = Clock()
        self.cluster = Cluster(identity, self.clock)
        self.opened = []

    def open(self):
        self.opened.append(MemoryCoordinator(self.cluster))
        return self.opened[-1]

    def pass_time(self, seconds):
        self.clock.now += seconds
        self.cluster.expire()


@pytest.fixture(params=["sqlite", "etcd", "memory"])
def backend(request, tmp_path):
    if request.param == "sqlite":
        backend = SQLiteBackend(tmp_path / "coordinator.db")
    elif request.param == "memory":
        backend = MemoryBackend("one")
    else:
        backend = EtcdBackend(request.getfixturevalue("agola_etcd").url(f"contract/{uuid.uuid4().hex}"))
    yield backend
    for coordinator in backend.opened:
        coordinator.close()


@pytest.fixture
def coordinator(backend):
    return backend.open()


def put(coordinator, key, value=b""):
    return coordinator.txn([], [PutOp(key, value)]).revision


def test_it_is_the_same_one_each_time_it_is_opened_and_no_other(backend, coordinator, tmp_path):
    assert backend.open().identity() == coordinator.identity()
    if isinstance(backend, EtcdBackend):
        other = EtcdBackend(f"{backend.url}-other")
    elif isinstance(backend, MemoryBackend):
        other = MemoryBackend("other")
    else:
        other = SQLiteBackend(tmp_path / "other.db")
    opened = other.open()
    assert opened.identity() != coordinator.identity()
    opened.close()


def test_a_key_remembers_its_revisions(coordinator):
    assert coordinator.get("a") is None
    first = put(coordinator, "a", b"1")
    second = put(coordinator, "a", b"2")
    item = coordinator.get("a")
    assert (item.value, item.create_revision, item.mod_revision, item.version) == (b"2", first, second, 2)
    coordinator.txn([], [DeleteOp("a")])
    assert coordinator.get("a") is None
    third = put(coordinator, "a")
    assert coordinator.get("a") == KeyValue("a", b"", third, third, 1)


def test_a_transaction_runs_then_or_otherwise_at_one_revision(coordinator):
    revision = put(coordinator, "a", b"1")
    result = coordinator.txn([Compare("a", revision)], [PutOp("a", b"2"), PutOp("b", b"2"), GetOp("a")])
    assert result.succeeded
    assert result.revision == revision + 1
    assert result.reads[0].value == b"2"
    assert coordinator.get("b").mod_revision == coordinator.get("a").mod_revision == result.revision
    result = coordinator.txn([Compare("a", revision)], [PutOp("a", b"3")], [GetOp("a"), GetOp("none")])
    assert not result.succeeded
    assert [item and item.value for item in result.reads] == [b"2", None]
    assert coordinator.get("a").value == b"2"


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (Compare("a", 0), False),
        (Compare("none", 0), True),
        (Compare("none", 0, Target.CREATE_REVISION), True),
        (Compare("a", 2, Target.VERSION), True),
        (Compare("a", 1, Target.VERSION), False),
        (Compare("a", b"2", Target.VALUE), True),
        (Compare("none", b"", Target.VALUE), False),
    ],
)
def test_comparisons(coordinator, compare, holds):
    put(coordinator, "a", b"1")
    put(coordinator, "a", b"2")
    assert coordinator.txn([compare], []).succeeded is holds


def test_a_transaction_that_changes_nothing_leaves_the_revision(coordinator):
    revision = put(coordinator, "a")
    assert coordinator.txn([], [DeleteOp("none")]).revision == revision
    assert coordinator.txn([], [GetOp("a")]).revision == revision
    assert put(coordinator, "b") == revision + 1


def test_what_does_not_hold_only_reads(coordinator):
    with pytest.raises(BadRequestError, match="only reads"):
        coordinator.txn([Compare("a", 1)], [], [PutOp("a", b"1")])
    assert coordinator.get("a") is None


def test_bad_transactions_change_nothing(coordinator):
    with pytest.raises(BadRequestError, match="twice"):
        coordinator.txn([], [PutOp("a", b"1"), PutOp("a", b"2")])
    with pytest.raises(NotFoundError, match="lease"):
        coordinator.txn([], [PutOp("a", b"1"), PutOp("b", b"", lease=4711)])
    with pytest.raises(BadRequestError, match="operations"):
        coordinator.txn([], [GetOp("a")] * (coordinator.max_txn_ops + 1))
    assert coordinator.get("a") is None


def test_a_range_is_deleted_at_one_revision(coordinator):
    for key in ("p/a", "p/b", "p/b/c", "p/é", "p/😀", "p0"):
        put(coordinator, key, b"x" * 100)
    first = put(coordinator, "p/b", b"again")
    with coordinator.watch("", first + 1) as watch:
        result = coordinator.txn([], [GetOp("p/b"), DeleteRangeOp("p/b", "p/😀"), GetOp("p/b"), PutOp("p/a", b"new")])
        assert (result.revision, result.deleted) == (first + 1, 3)
        assert [item and item.value for item in result.reads] == [b"again", None]
        batch = watch.next(5)
    assert batch.revision == first + 1
    assert [event.key for event in batch.events if event.item is None] == ["p/b", "p/b/c", "p/é"]
    assert [item.key for item in coordinator.list("p").items] == ["p/a", "p/😀", "p0"]
    assert [item.key for item in coordinator.list("p", revision=first).items][:3] == ["p/a", "p/b", "p/b/c"]
    assert coordinator.txn([], [DeleteRangeOp("p/b", "p/😀")]) == TxnResult(True, first + 1)
    assert coordinator.txn([], [DeleteOp("p0"), DeleteOp("none")]).deleted == 1
    assert coordinator.txn([Compare("p/a", 0)], [DeleteRangeOp("p", "q")]).deleted == 0
    put(coordinator, "p/b")
    assert coordinator.get("p/b").version == 1
    assert coordinator.txn([], [DeleteRangeOp("p", "q")]).deleted == 3


@pytest.mark.parametrize(
    "ops",
    [
        [DeleteRangeOp("a", "a")],
        [DeleteRangeOp("b", "a")],
        [DeleteRangeOp("a", "")],
        [DeleteRangeOp("a", "c"), PutOp("b", b"")],
        [DeleteOp("a"), DeleteRangeOp("a", "c")],
        [DeleteRangeOp("a", "c"), DeleteRangeOp("b", "d")],
    ],
)
def test_bad_ranges_change_nothing(coordinator, ops):
    put(coordinator, "a")
    with pytest.raises(BadRequestError):
        coordinator.txn([], ops)
    assert coordinator.get("a") is not None


def test_lists_are_in_byte_order_and_page_at_one_revision(coordinator):
    keys = ["p/a", "p/a-b", "p/a/b", "p/ab", "p/é", "p/日本", "p/😀", "p0", "p"]
    for key in keys:
        put(coordinator, key, key.encode())
    expected = sorted((key for key in keys if key.startswith("p/")), key=str.encode)
    page = coordinator.list("p/", limit=2)
    assert [item.key for item in page.items] == expected[:2]
    assert page.more
    put(coordinator, "p/new")
    coordinator.txn([], [DeleteOp("p/ab")])
    rest = coordinator.list("p/", start_after=page.items[-1].key, revision=page.revision)
    assert [item.key for item in rest.items] == expected[2:]
    assert [item.value for item in rest.items] == [key.encode() for key in expected[2:]]
    assert not rest.more
    assert [item.key for item in iterate(coordinator, "")][:2] == ["p", "p/a"]
    with pytest.raises(BadRequestError, match="newest"):
        coordinator.list("", revision=page.revision + 100)


def test_prefix_ends():
    assert prefix_end("a/") == "a0"
    assert prefix_end("") == ""
    assert prefix_end("a\U0010ffff") == "b"
    assert prefix_end("\ud7ff") == "\ue000"


def test_a_watch_gives_every_change_once_in_order(coordinator):
    before = put(coordinator, "w/0")
    with coordinator.watch("w/", before + 1) as watch:
        coordinator.txn([], [PutOp("w/2", b"2"), PutOp("other", b""), PutOp("w/1", b"1")])
        put(coordinator, "other")
        coordinator.txn([], [DeleteOp("w/2")])
        batch = watch.next(5)
        assert [(event.key, event.item.value) for event in batch.events] == [("w/2", b"2"), ("w/1", b"1")]
        assert batch.revision == before + 1
        batch = watch.next(5)
        assert [(event.key, event.item) for event in batch.events] == [("w/2", None)]
        assert watch.next(0) is None
    with coordinator.watch("w/", before) as again:
        assert [again.next(5).revision for _ in range(3)] == [before, before + 1, before + 3]


def test_a_slow_watch_is_told_of_compaction(coordinator):
    for number in range(20):
        put(coordinator, "a", b"%d" % number)
    newest = coordinator.get("a").mod_revision
    page = coordinator.list("")
    coordinator.compact(newest - 5)
    assert coordinator.get("a").value == b"19"
    assert coordinator.list("", revision=page.revision).items == page.items
    with pytest.raises(CompactedError) as error:
        coordinator.list("", revision=newest - 7)
    assert newest - 6 <= error.value.oldest <= newest - 5
    with coordinator.watch("", newest - 5) as kept:
        assert kept.next(5).revision == newest - 5
    coordinator.compact(newest - 10)  # going back is harmless


def test_compaction_keeps_what_its_own_revision_deleted(coordinator):
    put(coordinator, "a")
    put(coordinator, "b")
    deleted = coordinator.txn([], [DeleteOp("a"), PutOp("c", b"")]).revision
    put(coordinator, "d")
    coordinator.compact(deleted)
    with coordinator.watch("", deleted) as watch:
        assert [event.key for event in watch.next(5).events] == ["a", "c"]
        assert [event.key for event in watch.next(5).events] == ["d"]


def test_a_fresh_coordinator_tells_a_watch_of_compaction(backend):
    first = backend.open()
    start = put(first, "a")
    for number in range(20):
        put(first, "a", b"%d" % number)
    first.compact(start + 15)
    with backend.open().watch("", start + 3) as watch, pytest.raises(CompactedError):
        watch.next(5)


def test_a_watch_or_lock_for_which_there_is_no_thread_is_refused_and_later_ones_work(backend, monkeypatch):
    coordinator = backend.open()
    start = threading.Thread.start

    def refuse(thread):
        if thread.name.endswith("-watch") or thread.name.startswith("lease-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    before = put(coordinator, "a")
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        with pytest.raises(UnavailableError, match="no thread can be started for lease-"):
            try_lock(coordinator, "lock", owner="me")
        if not isinstance(coordinator, MemoryCoordinator):  # its watches have none
            with pytest.raises(UnavailableError, match=r"no thread can be started for .*-watch"):
                coordinator.watch("a", before)
            coordinator.close()
            coordinator = backend.open()
            with pytest.raises(UnavailableError):
                coordinator.watch("a", before)
    with coordinator.watch("a", before) as watch:
        assert watch.next(5).revision == before


def test_closing_ends_waiting_watches(backend):
    coordinator = backend.open()
    watch = coordinator.watch("", coordinator.list("").revision + 1)
    seen = []

    def wait():
        try:
            watch.next()
        except ClosedError as error:
            seen.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    coordinator.close()
    thread.join(10)
    assert len(seen) == 1
    with pytest.raises(ClosedError):
        coordinator.get("a")


def test_leases_end_and_take_their_keys_along(backend, coordinator):
    lease = coordinator.grant_lease(10)
    coordinator.txn([], [PutOp("leased", b"", lease), PutOp("kept", b"", lease)])
    put(coordinator, "kept")
    backend.pass_time(9)
    assert coordinator.keep_alive(lease) == 10
    backend.pass_time(9)
    assert coordinator.get("leased").lease == lease
    with coordinator.watch("leased", coordinator.get("leased").mod_revision + 1) as watch:
        backend.pass_time(2)
        assert watch.next(5).events[0].item is None
    assert coordinator.get("leased") is None
    assert coordinator.get("kept") is not None
    assert coordinator.keep_alive(lease) == 0.0
    coordinator.revoke_lease(lease)
    with pytest.raises(NotFoundError):
        coordinator.txn([], [PutOp("x", b"", lease)])


def test_a_lock_has_one_owner_and_rising_tokens(backend, coordinator):
    other = backend.open()
    with try_lock(coordinator, "lock", owner="one") as lock:
        assert try_lock(other, "lock", owner="two") is None
        assert other.txn([lock.fence], [PutOp("guarded", b"1")]).succeeded
        assert coordinator.get("lock").value == b"one"
    second = try_lock(other, "lock", owner="two")
    assert second.token > lock.token
    assert not coordinator.txn([lock.fence], [PutOp("guarded", b"2")]).succeeded
    backend.pass_time(60)
    assert coordinator.get("lock") is None
    assert not coordinator.txn([second.fence], [PutOp("guarded", b"3")]).succeeded
    second.release()


def test_a_lock_whose_lease_ends_before_it_is_taken_is_none(backend, coordinator):
    class Paused:
        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def txn(self, *arguments):
            backend.pass_time(60)
            return self._inner.txn(*arguments)

    assert try_lock(Paused(coordinator), "lock", owner="one") is None
    assert coordinator.get("lock") is None
    try_lock(coordinator, "lock", owner="one").release()


def test_many_threads_share_transactions_without_losing_one(coordinator):
    def count():
        for _ in range(50):
            while True:
                item = coordinator.get("n")
                value = int(item.value) if item else 0
                if coordinator.txn(
                    [Compare("n", item.mod_revision if item else 0)], [PutOp("n", b"%d" % (value + 1))]
                ).succeeded:
                    break

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert coordinator.get("n").value == b"400"
    assert coordinator.get("n").version == 400


def _count_in_process(url, times):
    coordinator = open_coordinator(url)
    for _ in range(times):
        while True:
            item = coordinator.get("n")
            value = int(item.value) if item else 0
            compare = [Compare("n", item.mod_revision if item else 0)]
            if coordinator.txn(compare, [PutOp("n", b"%d" % (value + 1))]).succeeded:
                break
    coordinator.close()


@pytest.mark.parametrize("backend", ["sqlite", "etcd"], indirect=True)
def test_processes_share_a_coordinator_and_its_watches(backend, coordinator):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_count_in_process, args=(backend.url, 50)) for _ in range(3)]
    with coordinator.watch("n", coordinator.list("").revision + 1) as watch:
        for process in processes:
            process.start()
        seen = [int(watch.next(30).events[0].item.value) for _ in range(150)]
        for process in processes:
            process.join()
    assert seen == list(range(1, 151))


def test_everything_is_there_after_reopening(backend):
    first = backend.open()
    revision = put(first, "a", b"1")
    first.close()
    second = backend.open()
    assert second.get("a").mod_revision == revision
    assert put(second, "b") > revision
