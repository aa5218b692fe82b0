"""A store on etcd when etcd is away, full, set back or wiped: what its users are told, and what is kept."""

from contextlib import closing

import pytest

import agola_core
from agola_core import Options, Put, Sequence
from agola_core.coordinator import PutOp, open_coordinator
from agola_core.errors import (
    AgolaError,
    DeadlineError,
    OutOfSpaceError,
    RecoveryError,
    UnavailableError,
    UnknownOutcomeError,
)
from agola_core.runtime import faultpoints
from agola_pytest.servers.etcd import control
from tests.support.etcd import eventually, in_background

QUIET = Options(background=False)


@pytest.fixture
def open_store(tmp_path):
    """Opens a store on a coordinator URL and the test's storage, and closes it in the end."""
    opened = []

    def open_one(url, **arguments):
        store = agola_core.open(
            storage=str(tmp_path / "storage"),
            coordinator=url,
            data_types=["n"],
            **{"options": QUIET, **arguments},
        )
        opened.append(store)
        return store

    yield open_one
    for store in reversed(opened):
        store.close()


def write(store, *names, value=b""):
    for name in names:
        store.write_wal([Put("n", name, value)])


def names(store):
    return [key for key, _ in store.list_objects("n")]


def give_up_after(seconds, monkeypatch):
    """Let a store and its coordinator wait less long for an etcd that could tell what became of a commit."""
    monkeypatch.setattr("agola_core.datamanager.log.commit.outcome_resolver._RESOLVE_SECONDS", seconds)
    monkeypatch.setattr("agola_core.coordinator.etcd.marks._SETTLE_SECONDS", seconds)


# Etcd away


def test_a_store_whose_etcd_is_away_does_not_open_and_says_where_it_looked(open_store):
    with pytest.raises(UnavailableError, match=r"etcd at 127.0.0.1:1, 127.0.0.1:2 did not answer within 0.5 s"):
        open_store("etcd://127.0.0.1:1,127.0.0.1:2/store?timeout=0.5")


def test_a_write_waits_for_etcd_and_is_told_when_the_time_is_over(agola_etcd, proxy, open_store, monkeypatch):
    give_up_after(1, monkeypatch)
    store = open_store(agola_etcd.through(proxy.endpoint).url("away", timeout=1), options=Options(lock_ttl=2))
    other = open_store(agola_etcd.url("away"))
    write(store, "a")
    proxy.refuse()
    with pytest.raises((DeadlineError, UnknownOutcomeError)):
        write(store, "b")  # its connection may break under it
    with pytest.raises(DeadlineError, match=f"etcd at {proxy.endpoint} did not answer within 1 s"):
        write(store, "c")
    assert store.read_object("n", "a")[0] == b""  # what is known can be read
    proxy.heal()
    eventually(lambda: write(store, "d"))
    other.refresh()
    assert [name for name in names(other) if name != "b"] == ["a", "d"]
    write(other, "e")
    with store.watch(after=str(Sequence(other.sequence.epoch, 0))) as feed:  # it follows again
        assert "e" in [feed.next(30).actions[0].id for _ in range(other.sequence.counter)]


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_a_commit_that_lost_its_answer_is_settled_before_its_writer_hears(agola_etcd, proxy, open_store, lost):
    store = open_store(agola_etcd.through(proxy.endpoint).url(f"settled-{lost}", timeout=10))
    write(store, "a")
    proxy.drop_requests() if lost == "request" else proxy.drop_answers()
    thread, outcome = in_background(lambda: write(store, "b"))
    assert proxy.wait_dropped()
    proxy.heal()
    thread.join(60)
    assert outcome == [None]
    write(store, "c")
    assert store.sequence.counter == 3  # once, not twice
    other = open_store(agola_etcd.url(f"settled-{lost}"))
    assert names(other) == ["a", "b", "c"]


def test_a_commit_that_cannot_be_settled_says_how_to_retry(agola_etcd, proxy, open_store, monkeypatch):
    give_up_after(0.5, monkeypatch)
    store = open_store(agola_etcd.through(proxy.endpoint).url("unsettled", timeout=0.5))
    write(store, "a")
    with (
        faultpoints.arm(lambda name: proxy.drop_answers() if name == "commit.before-txn" else None),
        pytest.raises(UnknownOutcomeError, match="retry with wal_id='once'"),
    ):
        store.write_wal([Put("n", "b", b"")], wal_id="once")
    proxy.heal()
    token = eventually(lambda: store.write_wal([Put("n", "b", b"")], wal_id="once"), AgolaError)
    assert token.sequence.endswith("2")
    assert names(store) == ["a", "b"]


def fill(store, acknowledged):
    for number in range(1000):
        write(store, f"{number:03}", value=bytes(60_000))
        acknowledged.append(f"{number:03}")


def test_a_full_etcd_refuses_writes_and_keeps_what_it_acknowledged(own_etcd, open_store):
    own_etcd.stop()
    own_etcd.arguments = ["--quota-backend-bytes=4000000"]
    own_etcd.start()
    store = open_store(own_etcd.url("full"))
    acknowledged = []
    with pytest.raises(OutOfSpaceError):
        fill(store, acknowledged)
    assert names(store) == acknowledged
    own_etcd.stop()
    own_etcd.arguments = []
    own_etcd.start()
    control("alarm", "disarm", endpoint=own_etcd.endpoint)
    eventually(store.sync)
    write(store, "again")
    assert names(open_store(own_etcd.url("full"))) == [*acknowledged, "again"]


def test_the_cleaner_keeps_etcds_history_short(own_etcd, open_store, monkeypatch):
    monkeypatch.setattr("agola_core.datamanager.background.wal_cleanup._HISTORY", 20)
    store = open_store(own_etcd.url("short"), options=Options(background=False, retain_wals=5))
    for _ in range(30):
        write(store, "a", value=bytes(1000))
    first = store.coordinator.get("dm/control/lineage").mod_revision
    store.checkpoint(force=True)
    assert store.clean_up() == 25
    store._store.tasks.wal_cleanup.compact()
    with pytest.raises(AgolaError, match="compacted"):
        store.coordinator.list("", revision=first)
    assert len(store.coordinator.list("dm/wals/").items) == 5


# Another history


@pytest.fixture
def restored(tmp_path, own_etcd):
    """An etcd with a function that sets it back to its last snapshot."""

    def set_back():
        own_etcd.kill()
        own_etcd.restore(tmp_path / "snapshot")
        own_etcd.start()

    own_etcd.set_back = set_back
    return own_etcd


def test_an_etcd_behind_its_storage_is_refused_until_it_is_recovered(tmp_path, restored, open_store):
    store = open_store(restored.url("behind"))
    write(store, "a")
    restored.snapshot(tmp_path / "snapshot")
    write(store, "b", "c")
    store.sync()
    restored.set_back()
    with pytest.raises(RecoveryError, match="went back"):
        eventually(lambda: write(store, "d"), (UnavailableError, UnknownOutcomeError))
    with pytest.raises(RecoveryError, match="recover=True"):
        open_store(restored.url("behind"))
    recovered = open_store(restored.url("behind"), recover=True)
    assert names(recovered) == ["a", "b", "c"]
    with pytest.raises(RecoveryError):
        write(store, "e")
    assert names(open_store(restored.url("behind"))) == ["a", "b", "c"]


def test_an_etcd_set_back_without_a_trace_in_the_log_is_refused(tmp_path, restored, open_store):
    """What is written beside the log counts too: the revision that it had reached stands in storage."""
    store = open_store(restored.url("beside"))
    write(store, "a")
    restored.snapshot(tmp_path / "snapshot")
    store.sync()
    store.coordinator.txn([], [PutOp("run/active", b"")])
    store.close()
    restored.set_back()
    with pytest.raises(RecoveryError, match=r"went back from revision .* agola-core recover"):
        open_store(restored.url("beside"))
    assert names(open_store(restored.url("beside"), recover=True)) == ["a"]


def test_the_keys_of_a_store_in_another_etcd_are_refused(tmp_path, restored, open_store):
    store = open_store(restored.url("moved"))
    write(store, "a")
    store.sync()
    with closing(open_coordinator(restored.url("copied"))) as copy:
        copy.txn([], [PutOp(item.key, item.value) for item in store.coordinator.list("dm/").items])
    with pytest.raises(RecoveryError, match="another one"):
        open_store(restored.url("copied"))
    assert names(open_store(restored.url("moved"))) == ["a"]


def test_a_writer_that_slept_through_a_restore_is_refused(tmp_path, restored, open_store):
    """Its own connection has seen nothing, and the others have gone on beyond what it knows."""
    sleeper = open_store(restored.url("slept", timeout=20))
    write(sleeper, "a")
    restored.snapshot(tmp_path / "snapshot")
    write(sleeper, "lost-1", "lost-2")
    restored.set_back()
    other = open_store(restored.url("slept"))
    write(other, *(f"new-{number}" for number in range(20)))
    with pytest.raises(RecoveryError, match=r"another one than this process has seen|went back"):
        eventually(lambda: write(sleeper, "b"), (UnavailableError, UnknownOutcomeError))
    with pytest.raises(RecoveryError):
        sleeper.refresh()
    other.refresh()
    assert "b" not in names(other)


def test_the_head_tells_histories_of_equal_length_apart(tmp_path, restored, open_store):
    sleeper = open_store(restored.url("equal", timeout=20))
    restored.snapshot(tmp_path / "snapshot")
    write(sleeper, "lost")
    known = sleeper.coordinator.get("dm/control/head")
    restored.set_back()
    direct = agola_core.open(
        storage=str(tmp_path / "storage"), coordinator=restored.url("equal"), data_types=["n"], options=QUIET
    )
    with direct:
        # The same sequence at the same revision, as if nothing but this commit had come after the restore.
        direct._store.log.head_revision = direct.coordinator.get("dm/control/head").mod_revision
        write(direct, "new")
        head = direct.coordinator.get("dm/control/head")
        sleeper._store.log.head_revision = head.mod_revision
        assert head.value != known.value
        with pytest.raises(RecoveryError):
            eventually(lambda: write(sleeper, "b"), (UnavailableError, UnknownOutcomeError))
        direct.refresh()
        assert names(direct) == ["new"]


def test_a_wiped_etcd_is_filled_from_the_storage(restored, open_store):
    store = open_store(restored.url("wiped"), durability="storage")
    write(store, "a", "b")
    restored.kill()
    restored.wipe()
    restored.start()
    with pytest.raises(RecoveryError):
        eventually(lambda: write(store, "c"), (UnavailableError, UnknownOutcomeError))
    again = open_store(restored.url("wiped"))
    assert names(again) == ["a", "b"]
    assert again.lineage != store.lineage


def test_another_clusters_store_is_not_mixed_in(tmp_path, agola_etcd, open_store):
    write(open_store(agola_etcd.url("mine")), "a")
    with agola_core.open(
        storage=str(tmp_path / "elsewhere"), coordinator=agola_etcd.url("theirs"), data_types=["n"], options=QUIET
    ) as other:
        write(other, "x")
    with pytest.raises(RecoveryError, match="mixed up"):
        open_store(agola_etcd.url("theirs"))
