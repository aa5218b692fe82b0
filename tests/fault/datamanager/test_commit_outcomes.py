"""Commits whose answer is lost: resolved before the caller hears anything, and never applied twice."""

import enum
import threading

import pytest

import agola_core
from agola_core import ConflictError, NotFoundError, Options, Put
from agola_core.coordinator.port import DeleteOp
from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator
from agola_core.datamanager import DataManager
from agola_core.datamanager.log.commit import outcome_resolver
from agola_core.errors import UnavailableError, UnknownOutcomeError
from agola_core.events import AppendCondition, Event, EventStore, Query
from agola_core.objectstorage.factory import open_storage
from agola_core.runtime import faultpoints
from agola_core.runtime.faultpoints import InjectedFaultError

OPTIONS = Options(background=False, inline_limit=200, retain_wals=2, retain_wal_ids=5)
JOIN_SECONDS = 60


class Cut(enum.Enum):
    """Where the connection is lost."""

    BEFORE = "before the transaction"
    IN = "in it: it is applied later, if its comparison still holds"
    AFTER = "after it"


class CutCoordinator:
    """A real coordinator behind a connection that can be cut.

    Attributes:
        cuts: What happens to the next transactions that write a WAL, one each.
        dead: While set, nothing gets through.
        lost: The transactions that were on their way when the connection was cut.
    """

    def __init__(self, coordinator):
        self._coordinator = coordinator
        self.cuts = []
        self.dead = False
        self.outage = 0
        self.lost = []

    def __getattr__(self, name):
        return getattr(self._coordinator, name)

    def get(self, key):
        self._pass()
        return self._coordinator.get(key)

    def txn(self, compare, then, otherwise=()):
        self._pass()
        if not self.cuts or not any(op.key.startswith("dm/wals/") for op in then):
            return self._coordinator.txn(compare, then, otherwise)
        cut = self.cuts.pop(0)
        if cut is Cut.AFTER:
            self._coordinator.txn(compare, then, otherwise)
        if cut is Cut.IN:
            self.lost.append((compare, then, otherwise))
        raise UnknownOutcomeError(f"the connection was cut {cut.value}")

    def deliver(self):
        """Let what was on its way arrive now; return whether any of it was applied."""
        arrived, self.lost = self.lost, []
        return any(self._coordinator.txn(*transaction).succeeded for transaction in arrived)

    def _pass(self):
        if self.dead or self.outage:
            self.outage = max(self.outage - 1, 0)
            raise UnavailableError("the connection is cut")


@pytest.fixture
def opened(tmp_path):
    coordinator = CutCoordinator(SQLiteCoordinator(tmp_path / "coordinator.db"))
    storage = open_storage(str(tmp_path / "storage"))
    managers = []

    def open_one():
        managers.append(DataManager(coordinator, storage, ["note"], OPTIONS))
        return managers[-1]

    yield coordinator, open_one
    coordinator.cuts, coordinator.dead, coordinator.outage = [], False, 0
    for manager in managers:
        manager.close()
    coordinator.close()
    storage.close()


def log_of(dm):
    """Return the first action of each WAL, oldest first."""
    with dm.watch(after=agola_core.Sequence(dm.sequence.epoch, 0)) as feed:
        return [feed.next(5).actions[0].id for _ in range(dm.sequence.counter)]


@pytest.mark.parametrize("cut", Cut)
@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("given", ["", "key-1"])
def test_a_lost_answer_is_resolved_and_the_wal_is_written_once(opened, cut, size, given):
    coordinator, open_one = opened
    dm = open_one()
    dm.write_wal([Put("note", "before", b"")])
    coordinator.cuts = [cut]
    token = dm.write_wal([Put("note", "a", b"x" * size)], dm.change_groups_token(["g"]), wal_id=given)
    assert not coordinator.deliver()  # what arrives late finds another head
    assert dm.read_object("note", "a", ["g"])[1] == token
    dm.write_wal([Put("note", "after", b"")], token)
    assert log_of(dm) == log_of(open_one()) == ["before", "a", "after"]


def test_what_was_taken_for_lost_cannot_arrive_before_it_is_written_anew(opened):
    """Between the verdict "not applied" and the second try lies the barrier: it turns the late one away."""
    coordinator, open_one = opened
    dm = open_one()
    coordinator.cuts = [Cut.IN]
    arrived = []

    def deliver(name):
        if name == "commit.before-txn" and coordinator.lost:
            arrived.append(coordinator.deliver())

    with faultpoints.arm(deliver):
        dm.write_wal([Put("note", "a", b"1")])
    assert arrived == [False]
    assert log_of(open_one()) == ["a"]


@pytest.mark.parametrize("cuts", [[Cut.BEFORE] * 5, [Cut.AFTER], [Cut.IN, Cut.BEFORE, Cut.AFTER]])
def test_the_outcome_is_waited_for_while_the_coordinator_is_away(opened, cuts, monkeypatch):
    monkeypatch.setattr(outcome_resolver, "_RESOLVE_PAUSE", 0.001)
    coordinator, open_one = opened
    dm = open_one()
    coordinator.cuts = list(cuts)
    original = coordinator.txn

    def txn(*args):
        try:
            return original(*args)
        except UnknownOutcomeError:
            coordinator.outage = 7
            raise

    coordinator.txn = txn
    dm.write_wal([Put("note", "a", b"1")])
    coordinator.deliver()
    dm.refresh()
    assert log_of(dm) == ["a"]


@pytest.mark.parametrize("cut", Cut)
def test_what_cannot_be_resolved_says_so_and_a_retry_applies_once(opened, cut, monkeypatch):
    monkeypatch.setattr(outcome_resolver, "_RESOLVE_SECONDS", 0.05)
    monkeypatch.setattr(outcome_resolver, "_RESOLVE_PAUSE", 0.001)
    coordinator, open_one = opened
    dm = open_one()
    coordinator.cuts = [cut]
    original = coordinator.txn

    def txn(*args):
        try:
            return original(*args)
        except UnknownOutcomeError:
            coordinator.dead = True
            raise

    coordinator.txn = txn
    with pytest.raises(UnknownOutcomeError, match="key-1"):
        dm.write_wal([Put("note", "a", b"1")], wal_id="key-1")
    coordinator.dead = False
    coordinator.deliver()
    first = dm.write_wal([Put("note", "a", b"1")], wal_id="key-1")
    assert open_one().write_wal([Put("note", "a", b"1")], wal_id="key-1") == first
    assert log_of(dm) == ["a"]


@pytest.mark.parametrize("cut", Cut)
def test_everybody_of_a_group_hears_the_resolved_outcome(opened, cut):
    coordinator, open_one = opened
    dm = open_one()
    coordinator.cuts = [cut] * 4
    errors = []

    def write(number):
        try:
            dm.write_wal([Put("note", f"{number:02}", b"")], dm.change_groups_token([f"g{number}"]))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_SECONDS)
    coordinator.deliver()
    assert errors == []
    assert sorted(log_of(open_one())) == [f"{number:02}" for number in range(32)]


def test_anothers_wal_in_the_place_of_a_lost_one_is_not_taken_for_it(opened):
    """The other process's head and WAL stand where the lost transaction's would: it must be written anew."""
    coordinator, open_one = opened
    dm, other = open_one(), open_one()
    original = coordinator.txn

    def txn(compare, then, otherwise=()):
        if any(op.key.startswith("dm/wals/") for op in then):
            coordinator.txn = original
            other.write_wal([Put("note", "other", b"")])
            raise UnknownOutcomeError("the connection was cut before the transaction")
        return original(compare, then, otherwise)

    coordinator.txn = txn
    dm.write_wal([Put("note", "mine", b"")])
    assert log_of(dm) == ["other", "mine"]


@pytest.mark.parametrize("forget", [False, True])
@pytest.mark.parametrize("given", ["", "key-1"])
@pytest.mark.parametrize("mine", [False, True])
def test_an_outcome_whose_wal_was_cleaned_away_is_found_in_ids_or_storage(opened, given, mine, forget):
    """Everything happens before the writer asks: its WAL, or another in its place, leaves the coordinator."""
    coordinator, open_one = opened
    dm, other = open_one(), open_one()
    original = coordinator.txn

    def txn(compare, then, otherwise=()):
        if any(op.key.startswith("dm/wals/") for op in then):
            coordinator.txn = original
            if mine:
                original(compare, then, otherwise)
            for number in range(4):
                token = other.change_groups_token(["g"] if number == 3 else [])
                other.write_wal([Put("note", f"{number}", b"")], token)
            other.checkpoint(force=True)
            assert other.clean_up()
            assert coordinator.get(f"dm/wals/{agola_core.Sequence(1, 1)}") is None
            if forget:
                original([], [DeleteOp("dm/walids/key-1")])
            raise UnknownOutcomeError("the connection was cut")
        return original(compare, then, otherwise)

    coordinator.txn = txn
    token = dm.write_wal([Put("note", "mine", b"")], dm.change_groups_token(["h"]), wal_id=given)
    assert token.sequence == str(agola_core.Sequence(1, 1 if mine else 5))
    assert dm.sequence.counter == 5
    assert {key for key, _ in dm.list_objects("note")} == {"0", "1", "2", "3", "mine"}
    assert dm.read_object("note", "mine", ["g"])[1] == open_one().read_object("note", "mine", ["g"])[1]
    if not (mine and (forget or not given)):
        dm.write_wal([Put("note", "next", b"")], token)
    else:  # its revision is not known any more
        with pytest.raises(ConflictError, match="read again"):
            dm.write_wal([Put("note", "next", b"")], token)


def test_each_of_a_group_hears_of_its_own_id(opened, monkeypatch):
    monkeypatch.setattr(outcome_resolver, "_RESOLVE_SECONDS", 0.0)
    coordinator, open_one = opened
    dm = open_one()
    coordinator.cuts = [Cut.BEFORE] * 20
    heard = {}

    def write(number):
        try:
            dm.write_wal([Put("note", "a", b"")], wal_id=f"key-{number}" if number else "")
        except UnknownOutcomeError as error:
            heard[number] = str(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    with dm._store.log.lock:  # all but the first wait for the first, and go together
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join(JOIN_SECONDS)
    assert len(heard) == 12
    assert "give a wal_id" in heard.pop(0)
    assert all(f"wal_id='key-{number}'" in message for number, message in heard.items())


def test_a_conflict_found_out_after_a_lost_answer_is_no_phantom(opened):
    coordinator, open_one = opened
    dm, other = open_one(), open_one()
    token = dm.change_groups_token(["g"])
    original = coordinator.txn

    def txn(compare, then, otherwise=()):
        if any(op.key.startswith("dm/wals/") for op in then):
            coordinator.txn = original
            coordinator.lost.append((compare, then, otherwise))
            other.write_wal([Put("note", "other", b"")], token)
            raise UnknownOutcomeError("the connection was cut in the transaction")
        return original(compare, then, otherwise)

    coordinator.txn = txn
    with pytest.raises(ConflictError, match="'g'"):
        dm.write_wal([Put("note", "mine", b"")], token)
    assert not coordinator.deliver()
    dm.refresh()
    assert log_of(dm) == ["other"]


@pytest.mark.parametrize("point", sorted(name for name in faultpoints.declared() if name.startswith("commit.")))
@pytest.mark.parametrize("size", [1, 1000])
def test_a_retry_after_a_failure_at_any_point_writes_once(opened, point, size):
    coordinator, open_one = opened
    dm = open_one()
    coordinator.cuts = [Cut.BEFORE] if point == "commit.before-barrier" else []
    actions = [Put("note", "a", b"x" * size)]
    reached = point != "commit.before-payload" or size > OPTIONS.inline_limit
    with faultpoints.arm(faultpoints.trigger(f"{point}:1:raise")):
        try:
            dm.write_wal(actions, wal_id="key-1")
        except (InjectedFaultError, UnknownOutcomeError):
            assert reached
        else:
            assert not reached or point == "commit.before-barrier"  # tried again inside
    for instance in (dm, open_one()):
        token = instance.write_wal(actions, wal_id="key-1")
        assert token.sequence == str(agola_core.Sequence(1, 1))
    assert log_of(dm) == ["a"]


def test_an_id_is_remembered_across_checkpoints_cleaning_and_reopening(opened):
    _, open_one = opened
    dm = open_one()
    first = dm.write_wal([Put("note", "a", b"1")], dm.change_groups_token(["g"]), wal_id="key-1")
    for number in range(10):
        dm.write_wal([Put("note", f"{number}", b"")])
    assert dm.checkpoint(force=True)
    assert dm.clean_up() > 0
    dm.close()
    again = open_one()
    assert again.write_wal([Put("note", "a", b"1")], wal_id="key-1") == first
    with pytest.raises(agola_core.BadRequestError, match="other actions"):
        again.write_wal([Put("note", "a", b"2")], wal_id="key-1")
    assert again.sequence.counter == 11
    assert again.read_object("note", "a")[0] == b"1"


def test_the_oldest_ids_are_forgotten_beyond_the_limit(opened):
    _, open_one = opened
    dm = open_one()
    for number in range(8):
        dm.write_wal([Put("note", "a", b"%d" % number)], wal_id=f"key-{number}")
    dm.checkpoint(force=True)
    dm.clean_up()
    dm.write_wal([Put("note", "a", b"7")], wal_id="key-7")
    assert dm.sequence.counter == 8
    dm.write_wal([Put("note", "a", b"0")], wal_id="key-0")  # long ago: a new write
    assert dm.sequence.counter == 9


def test_one_id_in_one_group_is_written_once(opened):
    _, open_one = opened
    dm = open_one()
    tokens, refused = [], []

    def write(number):
        try:
            tokens.append(dm.write_wal([Put("note", "a", b"%d" % (number % 2))], wal_id="key-1"))
        except agola_core.BadRequestError as error:
            refused.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_SECONDS)
    assert len({token.sequence for token in tokens}) == 1
    assert (len(tokens), len(refused)) == (12, 12)
    assert dm.sequence.counter == 1


def test_a_coordinator_that_refuses_before_it_begins_leaves_nothing(opened):
    coordinator, open_one = opened
    dm = open_one()
    coordinator.dead = True
    with pytest.raises(UnavailableError):
        dm.write_wal([Put("note", "a", b"1")])
    coordinator.dead = False
    with pytest.raises(NotFoundError):
        dm.read_object("note", "a")
    dm.write_wal([Put("note", "a", b"1")])
    assert log_of(dm) == ["a"]


@pytest.mark.parametrize("cut", Cut)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_lost_answer_to_an_append_is_resolved_and_the_events_stand_once(opened, cut, size):
    coordinator, open_one = opened
    store = EventStore(open_one())
    store.append([Event("before")], "s")
    coordinator.cuts = [cut]
    assert store.append([Event("A", b"x" * size), Event("B", tags=["t"])], "s", 1) == 3
    assert not coordinator.deliver()
    assert store.append([Event("after")], "s", 3, condition=AppendCondition(Query(tags=["t"]), after=3)) == 4
    for one in (store, EventStore(open_one())):
        assert [(event.position, event.type) for event in one.read_stream("s")] == [
            (1, "before"), (2, "A"), (3, "B"), (4, "after"),
        ]  # fmt: skip


@pytest.mark.parametrize("cut", Cut)
def test_an_append_that_cannot_be_resolved_is_resolved_by_the_ids_of_its_events(opened, cut, monkeypatch):
    monkeypatch.setattr(outcome_resolver, "_RESOLVE_SECONDS", 0.05)
    monkeypatch.setattr(outcome_resolver, "_RESOLVE_PAUSE", 0.001)
    coordinator, open_one = opened
    store = EventStore(open_one())
    coordinator.cuts = [cut]
    original = coordinator.txn

    def txn(*args):
        try:
            return original(*args)
        except UnknownOutcomeError:
            coordinator.dead = True
            raise

    coordinator.txn = txn
    events = [Event("A", id="a"), Event("B", id="b")]
    with pytest.raises(UnknownOutcomeError, match="ids of its events"):
        store.append(events, "s", 0)
    coordinator.dead = False
    coordinator.deliver()
    assert store.append(events, "s", 0) == 2
    assert EventStore(open_one()).append(events, "s", 0) == 2
    assert [event.type for event in store.read()] == ["A", "B"]
