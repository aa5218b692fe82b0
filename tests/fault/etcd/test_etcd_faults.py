"""The etcd coordinator when etcd, or the way to it, fails: what its callers are told, and that it comes back."""

import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from agola_core.coordinator import Compare, DeleteOp, DeleteRangeOp, GetOp, PutOp, Target, open_coordinator
from agola_core.coordinator.etcd import marks
from agola_core.coordinator.etcd import messages as rpc
from agola_core.coordinator.etcd.client import Endpoint
from agola_core.coordinator.lock import LeaseKeeper
from agola_core.coordinator.port import iterate
from agola_core.errors import (
    ClosedError,
    DeadlineError,
    OutOfSpaceError,
    UnavailableError,
    UnknownOutcomeError,
)
from agola_pytest.servers.etcd import control, start_etcd
from agola_pytest.servers.etcd_cluster import start_etcd_cluster
from tests.support.etcd import eventually, eventually_true, in_background, put, settled_put


def test_it_works_beside_a_current_protobuf_and_imports_nothing_of_the_package(agola_etcd):
    script = textwrap.dedent("""
        import os, sys
        from google.protobuf import __version__
        from agola_core.coordinator import PutOp, open_coordinator
        assert int(__version__.split(".")[0]) >= 4, __version__
        coordinator = open_coordinator(sys.argv[1])
        coordinator.txn([], [PutOp("a", b"1")])
        assert coordinator.get("a").value == b"1"
        coordinator.close()
        assert not [name for name in sys.modules if name.split(".")[0] == "etcd3"]
        assert "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION" not in os.environ
    """)
    subprocess.run([sys.executable, "-W", "error", "-c", script, agola_etcd.url("beside")], check=True)


def test_a_missing_extra_is_told():
    # In a process of its own: modules imported anew would leave a second set of message classes in this one.
    script = textwrap.dedent("""
        import sys
        sys.modules["grpc"] = None
        from agola_core.coordinator import open_coordinator
        from agola_core.errors import BadRequestError
        try:
            open_coordinator("etcd://127.0.0.1:1")
        except BadRequestError as error:
            print(error)
    """)
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert "pip install 'agola-core[etcd]'" in told


# Unknown outcomes


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_a_transaction_that_lost_its_answer_is_settled_and_applied_once(agola_etcd, proxy, opened, lost):
    direct = opened(agola_etcd.url(f"lost-{lost}"))
    broken = opened(agola_etcd.through(proxy.endpoint).url(f"lost-{lost}", timeout=10))
    start = put(broken, "n", b"1")
    proxy.drop_requests() if lost == "request" else proxy.drop_answers()
    ops = [GetOp("n"), PutOp("n", b"2"), PutOp("m", b""), DeleteOp("none"), GetOp("n")]
    thread, outcome = in_background(lambda: broken.txn([Compare("n", start)], ops))
    assert proxy.wait_dropped()
    if lost == "answer":  # what was swallowed may be another answer of the connection
        with direct.watch("n", start + 1) as watch:
            assert watch.next(20) is not None
    proxy.heal()
    thread.join(30)
    result, item = outcome[0], direct.get("n")
    assert (result.succeeded, result.revision, result.deleted) == (True, item.mod_revision, 0)
    assert [read.value for read in result.reads] == [b"1", b"2"]
    assert (item.value, item.version) == (b"2", 2)
    assert not broken.txn([Compare("n", start)], [PutOp("n", b"3")]).succeeded
    assert put(broken, "n", b"3") > item.mod_revision


def test_deletions_that_lost_their_answer_are_counted(agola_etcd, proxy, opened):
    direct = opened(agola_etcd.url("counted"))
    broken = opened(agola_etcd.through(proxy.endpoint).url("counted", timeout=10))
    revision = [put(broken, f"k{number}") for number in range(5)][-1]
    proxy.drop_answers()
    thread, outcome = in_background(
        lambda: broken.txn([Compare("k4", revision)], [DeleteRangeOp("k0", "k3"), DeleteOp("k4"), DeleteOp("none")])
    )
    assert proxy.wait_dropped()
    with direct.watch("k4", revision + 1) as watch:
        assert watch.next(20) is not None
    proxy.heal()
    thread.join(30)
    assert (outcome[0].succeeded, outcome[0].deleted) == (True, 4)
    assert [item.key for item in direct.list("").items] == ["k3"]


def test_what_arrives_after_it_was_settled_does_nothing(agola_etcd, opened):
    """The transaction is held on its way, its sender takes it for lost and goes on, and then it arrives."""
    coordinator = opened(agola_etcd.url("late"))
    put(coordinator, "other")
    held = []
    send = coordinator._client.send

    def lose(method, request, timeout=None):
        coordinator._client.send = send
        held.append((method, request))
        raise UnknownOutcomeError("lost") from UnavailableError("lost")

    coordinator._client.send = lose
    revision = put(coordinator, "n", b"1")
    assert coordinator.get("n").version == 1
    assert not send(*held[0]).succeeded
    assert coordinator.get("n").mod_revision == revision


def test_an_outcome_that_cannot_be_settled_is_told_as_unknown(agola_etcd, proxy, opened, monkeypatch):
    monkeypatch.setattr(marks, "_SETTLE_SECONDS", 0.5)
    broken = opened(agola_etcd.through(proxy.endpoint).url("unsettled", timeout=0.5))
    put(broken, "n")
    proxy.drop_answers()
    with pytest.raises(UnknownOutcomeError, match="may have been applied"):
        put(broken, "n")


def test_a_lease_that_lost_its_answer_is_granted_once(agola_etcd, proxy, opened):
    direct = opened(agola_etcd.url("lost-lease"))
    broken = opened(agola_etcd.through(proxy.endpoint).url("lost-lease", timeout=20))
    proxy.drop_answers()
    thread, outcome = in_background(lambda: broken.grant_lease(60))
    assert proxy.wait_dropped()
    proxy.heal()
    thread.join(30)
    assert direct.keep_alive(outcome[0]) == 60


def test_marks_of_others_are_swept_once_nobody_waits_for_them(agola_etcd, opened, monkeypatch):
    dead, other, sweeper = (opened(agola_etcd.url("swept")) for _ in range(3))
    put(dead, "a")
    put(other, "b")
    for _ in range(2):
        sweeper.compact(sweeper.list("").revision)
    assert len(found_marks(sweeper)) == 2  # they may be in use
    monkeypatch.setattr(marks, "_SWEEP_SECONDS", 0.0)
    sweeper.compact(sweeper.list("").revision)
    assert found_marks(sweeper) == []
    put(sweeper, "c")
    assert put(other, "b") == sweeper.get("b").mod_revision  # it makes a new one
    other.close()
    assert len(found_marks(sweeper)) == 1
    assert [item.key for item in sweeper.list("").items] == ["a", "b", "c"]


def found_marks(coordinator):
    prefix = coordinator._client.settings.prefix + marks.MARKS
    end = coordinator._client.settings.prefix[:-1] + b"0"
    return list(coordinator._client.ask(rpc.RANGE, rpc.RangeRequest(key=prefix, range_end=end)).kvs)


def test_what_certainly_went_nowhere_is_told_so_or_sent_again(agola_etcd, proxy, opened):
    hasty = opened(agola_etcd.through(proxy.endpoint).url("nowhere", timeout=0.5))
    patient = opened(agola_etcd.through(proxy.endpoint).url("nowhere", timeout=30))
    proxy.refuse()
    for coordinator in (hasty, patient):  # both find out that their connections are broken
        with pytest.raises((UnknownOutcomeError, UnavailableError)):
            coordinator._client.ask(rpc.RANGE, rpc.RangeRequest(key=b"x"), 0.2)
    with pytest.raises(DeadlineError, match="cannot be reached"):
        put(hasty, "a", b"hasty")
    thread, outcome = in_background(lambda: put(patient, "a", b"patient"))
    thread.join(0.3)
    assert not outcome
    proxy.heal()
    thread.join(30)
    item = patient.get("a")
    assert (item.value, item.version, item.mod_revision) == (b"patient", 1, outcome[0])


def test_reads_are_repeated_until_they_are_answered(agola_etcd, proxy, opened):
    broken = opened(agola_etcd.through(proxy.endpoint).url("reads", timeout=20))
    put(broken, "a", b"1")
    proxy.refuse()
    thread, outcome = in_background(lambda: broken.get("a"))
    thread.join(0.5)
    assert not outcome
    proxy.heal()
    thread.join(20)
    assert outcome[0].value == b"1"


def test_every_request_has_a_deadline_that_names_the_endpoints(agola_etcd, proxy, opened):
    broken = opened(agola_etcd.through(proxy.endpoint).url("deadline", timeout=0.5))
    proxy.drop_requests()
    for request in (
        lambda: broken.get("a"),
        lambda: broken.list(""),
        lambda: broken.txn([Compare("a", 0)], []),
        lambda: broken.keep_alive(1),
        lambda: broken.compact(5),
    ):
        with pytest.raises(DeadlineError, match=f"etcd at {proxy.endpoint} did not answer within 0.5 s"):
            request()


# Failover


def test_another_endpoint_takes_over(tmp_path, etcd_programs, opened):
    with start_etcd_cluster(tmp_path) as cluster:
        coordinator = opened(cluster.url("failover", timeout=10))
        watch = coordinator.watch("", put(coordinator, "start") + 1)
        expected = []
        for number in range(9):
            if number % 3 == 1:
                cluster.members[number // 3].kill()
            elif number % 3 == 2:
                cluster.members[number // 3].start()
            expected.append(settled_put(coordinator, f"k{number}"))
            assert coordinator.get(f"k{number}").mod_revision == expected[-1]
        seen = []
        while len(seen) < len(expected):
            seen.append(watch.next(30).revision)
        assert seen == expected


def test_a_member_without_majority_refuses_at_once(tmp_path, etcd_programs, opened, monkeypatch):
    monkeypatch.setattr(marks, "_SETTLE_SECONDS", 0.5)
    with start_etcd_cluster(tmp_path) as cluster:
        coordinator = opened(cluster.url("minority", timeout=3))
        put(coordinator, "a", b"1")
        for member in cluster.members[1:]:
            member.pause()
        with pytest.raises((UnavailableError, UnknownOutcomeError)):
            put(coordinator, "a", b"2")
        with pytest.raises(UnavailableError, match="did not answer within 3 s"):
            coordinator.get("a")
        for member in cluster.members[1:]:
            member.resume()
        assert eventually(lambda: coordinator.get("a")).value in {b"1", b"2"}


# Leases


def test_a_lease_ends_by_etcds_own_clock(agola_etcd, opened):
    coordinator = opened(agola_etcd.url("lease"))
    lease = coordinator.grant_lease(1)
    coordinator.txn([], [PutOp("leased", b"", lease)])
    with coordinator.watch("leased", coordinator.get("leased").mod_revision + 1) as watch:
        assert watch.next(30).events[0].item is None
    assert coordinator.keep_alive(lease) == 0.0


def test_a_keeper_reports_a_lost_lease_before_anybody_else_can_have_it(agola_etcd, proxy, opened):
    """No heartbeat arrives any more: where only answers are lost, etcd goes on renewing the lease for a while."""
    direct = opened(agola_etcd.url("keeper"))
    keeper = LeaseKeeper(opened(agola_etcd.through(proxy.endpoint).url("keeper")), 5)
    direct.txn([], [PutOp("held", b"", keeper.lease)])
    assert keeper.held
    with direct.watch("held", direct.get("held").mod_revision + 1) as watch:
        proxy.drop_requests()
        assert watch.next(60).events[0].item is None
        assert not keeper.held
    proxy.heal()
    keeper.close()


def test_a_keeper_hears_that_its_lease_was_revoked(agola_etcd, opened):
    direct = opened(agola_etcd.url("revoked"))
    keeper = LeaseKeeper(direct, 2)
    direct.revoke_lease(keeper.lease)
    eventually_true(lambda: not keeper.held)  # its next heartbeat is answered with a time of 0
    keeper.close()


# A full etcd


def fill(coordinator):
    for number in itertools.count():
        put(coordinator, f"k{number % 4}", os.urandom(100_000))


def test_a_full_etcd_reads_and_deletes_and_takes_no_writes(tmp_path, etcd_programs, opened):
    with start_etcd(tmp_path, arguments=["--quota-backend-bytes=2000000"]) as server:
        coordinator = opened(server.url("full"))
        with pytest.raises(OutOfSpaceError, match="database space exceeded"):
            fill(coordinator)
        assert coordinator.get("k0") is not None
        with pytest.raises(OutOfSpaceError):
            coordinator.grant_lease(5)
        assert coordinator.txn([], [DeleteOp("k0")]).succeeded
        coordinator.compact(coordinator.list("").revision)
        control("defrag", endpoint=server.endpoint)
        control("alarm", "disarm", endpoint=server.endpoint)
        assert put(coordinator, "k0")


def test_what_a_full_etcd_refuses_is_not_there(tmp_path, etcd_programs, opened):
    """etcd lets requests in while there is room, applies them, and answers "no space" when they have filled it."""
    told = {}
    with start_etcd(tmp_path, arguments=["--quota-backend-bytes=4000000"]) as server:
        coordinator = opened(server.url("doubtful"))

        def write(writer):
            for number in range(100):
                name = f"{writer}-{number}"
                try:
                    told[name] = put(coordinator, name, os.urandom(60_000))
                except OutOfSpaceError:
                    told[name] = None
                    return

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        found = {item.key: item.mod_revision for item in iterate(coordinator, "")}
    assert sum(revision is None for revision in told.values()) == 32
    assert found == {name: revision for name, revision in told.items() if revision is not None}


def test_a_lock_that_a_full_etcd_gave_is_known_or_not_there(tmp_path, etcd_programs, opened):
    with start_etcd(tmp_path, arguments=["--quota-backend-bytes=4000000"]) as server:
        coordinator = opened(server.url("locks"))
        leases = [coordinator.grant_lease(60) for _ in range(32)]
        known = set()

        def lock(number):
            for attempt in range(100):
                name = f"lock-{number}-{attempt}"
                try:
                    ops = [PutOp(name, os.urandom(60_000), leases[number])]
                    assert coordinator.txn([Compare(name, 0, Target.CREATE_REVISION)], ops).succeeded
                    known.add(name)
                except OutOfSpaceError:
                    return

        threads = [threading.Thread(target=lock, args=(number,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert {item.key for item in iterate(coordinator, "")} == known


# Ending


def test_a_forked_child_is_refused_and_its_parent_goes_on(agola_etcd):
    script = textwrap.dedent("""
        import os, sys
        from agola_core.coordinator import PutOp, open_coordinator
        from agola_core.errors import ClosedError
        coordinator = open_coordinator(sys.argv[1])
        child = os.fork()
        if not child:
            for use in (lambda: coordinator.get("a"), lambda: coordinator.watch("", 1)):
                try:
                    use()
                except ClosedError as error:
                    assert "before a fork" in str(error)
                else:
                    os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        coordinator.txn([], [PutOp("a", b"1")])
        coordinator.close()
    """)
    command = [sys.executable, "-c", script, agola_etcd.url("fork")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_close_ends_everything_cleanly_also_while_etcd_is_away(agola_etcd, proxy):
    before = set(threading.enumerate())
    for damage in (lambda: None, proxy.refuse, proxy.drop_answers):
        proxy.heal()
        coordinator = open_coordinator(agola_etcd.through(proxy.endpoint).url("close"))
        watch = coordinator.watch("", put(coordinator, "a") + 1)  # other tests compact what was before
        waiting, outcome = in_background(watch.next)
        damage()
        reading, read = in_background(lambda coordinator=coordinator: [coordinator.get("a") for _ in range(10_000)])
        coordinator.close()
        coordinator.close()
        for thread in (waiting, reading):
            thread.join(20)
        assert isinstance(outcome[0], ClosedError)
        assert isinstance(read[0], ClosedError)
    ours = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith(("etcd", "watch"))]
    assert not ours


def test_close_asks_an_absent_etcd_once_and_one_that_a_watch_has_lost_never(agola_etcd, proxy, monkeypatch):
    asked, unary = [], Endpoint.unary
    monkeypatch.setattr(Endpoint, "unary", lambda *args: asked.append(args[1]) or unary(*args))
    for watched in (False, True):
        proxy.heal()
        coordinator = open_coordinator(agola_etcd.through(proxy.endpoint).url("close-absent"))
        start = put(coordinator, "a") + 1
        if watched:
            coordinator.watch("", start)
            eventually_true(lambda: getattr(coordinator._watches._stream, "answered", False))  # noqa: B023
        proxy.refuse()
        if watched:
            eventually_true(lambda: not coordinator._client.answers)  # noqa: B023
        asked.clear()
        coordinator.close()
        assert asked.count(rpc.TXN) == (0 if watched else 1)


def test_an_absent_etcd_costs_next_to_nothing(agola_etcd, proxy, opened):
    coordinator = opened(agola_etcd.through(proxy.endpoint).url("idle"))
    watches = [coordinator.watch(f"{number}", 1) for number in range(4)]
    proxy.refuse()
    coordinator_cpu = time.process_time()
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        assert watches[0].next(max(0.0, deadline - time.monotonic())) is None
    spent = (time.process_time() - coordinator_cpu) / 4
    assert spent < 0.2, f"{spent:.1%} of a processor"  # measured: below 2 %


def test_compares_of_values_and_versions_reach_etcd(agola_etcd, opened):
    coordinator = opened(agola_etcd.url("compares"))
    put(coordinator, "a", b"x")
    assert coordinator.txn([Compare("a", b"x", Target.VALUE), Compare("a", 1, Target.VERSION)], []).succeeded
