"""Many WALs in one call: in their order, in few transactions, each with a verdict of its own."""

import io
import threading

import pytest

import agola_core
from agola_core import (
    BadRequestError,
    ChangeGroupsToken,
    ConflictError,
    DeadlineError,
    Delete,
    FencedError,
    NewWal,
    Options,
    Put,
    UnavailableError,
)
from agola_core.runtime import faultpoints
from agola_core.sequence import Sequence


def open_store(path, durability="coordinator", **options):
    return agola_core.open(
        path, data_types=["note"], durability=durability, options=Options(background=False, **options)
    )


@pytest.fixture
def dm(tmp_path):
    with open_store(tmp_path) as opened:
        yield opened


def counters(verdicts):
    """Return the counters of committed WALs, and the types of the errors."""
    return [
        Sequence.parse(one.sequence).counter if isinstance(one, ChangeGroupsToken) else type(one) for one in verdicts
    ]


def test_wals_are_committed_in_one_transaction_and_in_their_order(dm):
    reached = []
    with faultpoints.arm(reached.append):
        verdicts = dm.write_wals([Put("note", "last", b"%d" % number)] for number in range(100))
    assert reached.count("commit.before-txn") == 1
    assert counters(verdicts) == list(range(1, 101))
    assert {verdict.revision for verdict in verdicts} == {verdicts[0].revision}
    assert dm.get("note", "last") == b"99"
    assert dm.write_wals([]) == []


def test_each_wal_has_its_own_verdict(dm):
    token = dm.change_groups_token(["g"])
    verdicts = dm.write_wals(
        [
            NewWal((Put("note", "a", b"1"),), token),
            NewWal((Put("note", "a", b"2"),), token),  # the one before has moved the group
            [Put("note", "b", b"1", if_absent=True)],
            [Put("note", "b", b"2", if_absent=True)],
            [],
            [Put("other", "a", b"")],
            7,
            NewWal((Put("note", "c", b"1"),), wal_id="once"),
            NewWal((Put("note", "c", b"1"),), wal_id="once"),
            NewWal((Put("note", "c", b"2"),), wal_id="once"),
            NewWal((Put("note", "c", b"3"),), "no token"),
            [Put("note", "d", b"1", expected="?")],
            [Put("note", "e", b"1")],
        ]
    )
    refused, wrong = ConflictError, BadRequestError
    assert counters(verdicts) == [1, refused, 2, refused, wrong, wrong, wrong, 3, 3, wrong, wrong, wrong, 4]
    assert "each a list of actions" not in str(verdicts[4])
    assert dict(dm.list_objects("note")) == {"a": b"1", "b": b"1", "c": b"1", "e": b"1"}
    assert verdicts[0].groups == {"g": verdicts[0].revision}


def test_order_holds_though_a_wal_waits_for_the_one_before(dm):
    create, delete = [Put("note", "a", b"", if_absent=True)], [Delete("note", "a")]
    verdicts = dm.write_wals([create, delete] * 1100)  # more transactions than a race may be lost
    assert counters(verdicts) == list(range(1, 2201))
    assert not dm.exists("note", "a")


def test_what_does_not_fit_into_one_transaction_takes_several(tmp_path, agola_etcd):
    with agola_core.open(storage=f"posix://{tmp_path}", coordinator=agola_etcd.url("wals"), data_types=["note"]) as dm:
        reached = []
        with faultpoints.arm(reached.append):
            verdicts = dm.write_wals([Put("note", str(number), b"")] for number in range(300))
        assert counters(verdicts) == list(range(1, 301))
        assert reached.count("commit.before-txn") == 3
        assert len(list(dm.list_objects("note"))) == 300


def test_a_lost_race_refuses_only_who_has_a_conflict(tmp_path):
    with open_store(tmp_path) as dm, open_store(tmp_path) as other:
        passed = []

        def overtake(name):
            if name == "commit.before-txn" and not passed:
                passed.append(name)
                other.write_wal([Put("note", "b", b"0")])

        with faultpoints.arm(overtake):
            verdicts = dm.write_wals([[Put("note", name, b"1", if_absent=True)] for name in "abc"])
        assert counters(verdicts) == [2, ConflictError, 3]


def test_large_wals_go_along_and_storage_durability_waits_for_all(tmp_path):
    with open_store(tmp_path, "storage", inline_limit=100) as dm:
        verdicts = dm.write_wals([[Put("note", name, name.encode() * size)] for name, size in [("a", 1), ("b", 1000)]])
        assert dm.wal_status(verdicts[-1].sequence) == "committed_storage"
        assert dm.get("note", "b") == b"b" * 1000

        def fail(name):
            if name in {"commit.before-payload", "sync.before-batch"}:
                raise UnavailableError("the disk does not serve")

        with faultpoints.arm(fail):
            failed = dm.write_wals([[Put("note", "c", b"")], [Put("note", "d", b"d" * 1000)], [Delete("note", "a")]])
        assert [isinstance(one, UnavailableError) for one in failed] == [True] * 3
        assert "is committed, but is not in object storage yet" in str(failed[0])
        assert str(failed[1]) == "the disk does not serve"
        assert dict(dm.list_objects("note")) == {"b": b"b" * 1000, "c": b""}


@pytest.mark.parametrize("background", [False, True])
def test_an_import_before_they_are_in_storage_is_no_durable_commit(tmp_path, background):
    with agola_core.open(
        tmp_path, data_types=["note"], durability="storage", options=Options(background=background)
    ) as dm:
        dm.write_wal([Put("note", "old", b"")])
        exported = io.BytesIO()
        dm.export(exported)
        exported.seek(0)
        once = threading.Lock()

        def import_once(name):
            if name == "sync.before-batch" and once.acquire(blocking=False):
                dm.import_(exported)

        with faultpoints.arm(import_once):
            verdicts = dm.write_wals([[Put("note", "a", b"")], [Put("note", "b", b"")]])
        assert [type(one) for one in verdicts] == [FencedError, FencedError]
        assert dict(dm.list_objects("note")) == {"old": b""}


def test_an_import_in_between_fences_them(tmp_path):
    with open_store(tmp_path) as dm:
        waiting = dm._writer._prepared(NewWal((Put("note", "a", b""),)), "another lineage")
        dm._writer.group_commit.commit_all([waiting])
        assert isinstance(waiting.error, FencedError)


def test_what_is_no_list_of_wals_is_named(dm):
    for wrong, said in [
        (Put("note", "a", b""), "not a single Put"),
        ([Put("note", "a", b"")], "write_wal takes one"),
        (7, "not int"),
    ]:
        with pytest.raises(BadRequestError, match=said):
            dm.write_wals(wrong)
    assert dm.sequence.counter == 0


def test_a_turn_that_does_not_come_in_time_writes_nothing(dm):
    def held(name):
        if name == "commit.before-txn":
            with pytest.raises(DeadlineError, match="nothing was written"):
                dm.write_wals([[Put("note", "b", b"")]], timeout=0.01)

    with faultpoints.arm(held):
        dm.write_wal([Put("note", "a", b"")])
    assert not dm.exists("note", "b")
