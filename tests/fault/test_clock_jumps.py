"""The clock jumps in the middle of things: what looks ten years old may be a second old, and is kept."""

import time

import pytest

import agola_core
import agola_core.embedded
from agola_core import Options, Put
from agola_core.datamanager import DataManager
from agola_core.runtime import faultpoints

YEARS = 10 * 365 * 86400.0


@pytest.fixture
def open_store(tmp_path):
    """Opens datamanagers of one store on one clock, which `open_store.ahead` sets."""
    opened = []

    def open_one(**options):
        coordinator, storage = agola_core.embedded.open_backends(tmp_path)
        dm = DataManager(
            coordinator,
            storage,
            ["n"],
            Options(background=False, inline_limit=24, retain_wals=0, **options),
            clock=lambda: time.time() + open_one.ahead,
        )
        opened.append((dm, coordinator, storage))
        return dm

    open_one.ahead = 0.0
    yield open_one
    for parts in opened:
        for part in parts:
            part.close()


def at_first(point, act):
    done = []

    def hook(name):
        if name == point and not done:
            done.append(name)
            act()

    return faultpoints.arm(hook)


def test_a_payload_that_is_about_to_be_committed_survives_a_jump(open_store):
    writer, other = open_store(), open_store()
    collected = []

    def jump():
        open_store.ahead = YEARS
        collected.extend(other.collect_garbage())

    with at_first("commit.before-txn", jump):
        writer.write_wal([Put("n", "large", b"x" * 100)])
    assert [garbage.path.split("/")[0] for garbage in collected] == ["payloads"]
    assert writer.read_object("n", "large")[0] == b"x" * 100
    assert writer.verify() == []
    other.refresh()
    assert other.read_object("n", "large")[0] == b"x" * 100


def test_collections_that_take_a_payload_each_time_are_told(open_store):
    writer, other = open_store(grace_period=0), open_store(grace_period=0)
    with (
        faultpoints.arm(lambda name: name == "commit.before-txn" and bool(other.collect_garbage())),
        pytest.raises(agola_core.UnavailableError, match="nothing was written"),
    ):
        writer.write_wal([Put("n", "large", b"x" * 100)])
    assert dict(writer.list_objects("n")) == {}
    writer.write_wal([Put("n", "large", b"x" * 100)])
    assert writer.verify() == []


def test_a_list_of_wals_keeps_its_order_when_a_collection_takes_a_payload(open_store):
    """Those of one transaction and of the next ones, too: a transaction holds about a thousand operations."""
    writer, other = open_store(grace_period=0), open_store(grace_period=0)
    numbers = range(1500)
    wals = [[Put("n", "last", b"%d" % number)] for number in numbers]
    wals[1] = [Put("n", "last", b"1"), Put("n", "large", b"x" * 100)]
    with at_first("commit.before-txn", other.collect_garbage):
        verdicts = writer.write_wals(wals)
    counters = [int(token.sequence.rpartition("-")[2], 32) for token in verdicts]
    assert counters == sorted(set(counters))
    assert len(counters) == len(numbers)
    assert writer.read_object("n", "last")[0] == b"1499"
    assert writer.read_object("n", "large")[0] == b"x" * 100
    assert writer.verify() == []


def test_a_list_of_wals_stops_where_collections_take_a_payload_each_time(open_store):
    writer, other = open_store(grace_period=0), open_store(grace_period=0)
    wals = [[Put("n", "a", b"1")], [Put("n", "a", b"x" * 100)], [Put("n", "a", b"3")]]
    with faultpoints.arm(lambda name: name == "commit.before-txn" and bool(other.collect_garbage())):
        verdicts = writer.write_wals(wals)
    assert isinstance(verdicts[0], agola_core.ChangeGroupsToken)
    for verdict, whose in zip(verdicts[1:], ["the WAL's payload", "the payload of a WAL before this one"], strict=True):
        assert isinstance(verdict, agola_core.UnavailableError)
        assert str(verdict) == f"collections took {whose} each time: nothing was written"
    assert dict(writer.list_objects("n")) == {"a": b"1"}


@pytest.mark.parametrize("ahead", [YEARS, -YEARS])
def test_data_files_of_a_checkpoint_under_way_survive_a_jump(open_store, ahead):
    writer, other = open_store(), open_store()
    for number in range(3):
        writer.write_wal([Put("n", f"{number}", b"x" * 100)])

    def jump():
        open_store.ahead = ahead
        other.collect_garbage()

    with at_first("checkpoint.before-txn", jump):
        writer.checkpoint(force=True)
    assert len(dict(open_store().list_objects("n"))) == 3
    assert writer.verify() == []
