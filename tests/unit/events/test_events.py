"""The event store's rules, one by one, on an embedded store and on etcd."""

import contextlib
import io
import random
import subprocess
import sys
import textwrap
import threading
import uuid

import pytest

import agola_core
from agola_core import (
    BadRequestError,
    ClosedError,
    ConflictError,
    Delete,
    FencedError,
    ForbiddenError,
    NotFoundError,
    Options,
    Put,
    open_events,
)
from agola_core.coordinator.factory import open_coordinator
from agola_core.coordinator.port import DeleteOp
from agola_core.datamanager import DataManager
from agola_core.datamanager.format.events import EVENTS
from agola_core.datamanager.format.keys import reader_lock
from agola_core.events import ANY, NO_STREAM, AppendCondition, Event, EventStore, Query, StreamEvents
from agola_core.objectstorage.factory import open_storage

OPTIONS = Options(background=False, grace_period=0)


@pytest.fixture(params=["sqlite", "etcd"])
def open_store(request, tmp_path):
    """Opens event stores on one store, each as another process would have it."""
    where = {"path": tmp_path / "store"}
    if request.param == "etcd":
        url = request.getfixturevalue("agola_etcd").url(f"events/{uuid.uuid4().hex}")
        where = {"storage": str(tmp_path / "storage"), "coordinator": url}
    opened = []

    def open_one(**options):
        given = {"data_types": ["note"], "options": OPTIONS, **options}
        opened.append(agola_core.open_events(**where, **given))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store):
    return open_store()


def types(events):
    return [event.type for event in events]


def test_an_event_comes_back_as_it_was_given(store):
    event = Event("Opened", b"{}", tags=["account:1", "account:1", "bank:2"], metadata={"by": "ann", "n": [1]}, id="e1")
    assert store.append([event], "account-1") == 1
    (found,) = store.read_stream("account-1")
    assert (found.stream, found.version, found.position, found.id) == ("account-1", 1, 1, "e1")
    assert (found.type, found.data, found.tags, found.metadata) == (
        "Opened", b"{}", ("account:1", "bank:2"), {"by": "ann", "n": [1]},
    )  # fmt: skip
    assert found.recorded.tzinfo is not None
    found.metadata["by"] = "bob"
    assert next(store.read_stream("account-1")).metadata["by"] == "ann"


def test_positions_have_no_gaps_and_versions_count_each_stream(store):
    assert store.append([Event("A"), Event("B")], "one") == 2
    assert store.append([Event("C")]) == 3
    assert store.append([Event("D")], "two") == 4
    assert store.append([Event("E")], "one") == 5
    assert [(e.position, e.stream, e.version) for e in store.read()] == [
        (1, "one", 1), (2, "one", 2), (3, "", 0), (4, "two", 1), (5, "one", 3),
    ]  # fmt: skip
    assert store.head == 5
    assert store.version("one") == 3
    assert store.version("none") == 0


@pytest.mark.parametrize("expected", [1, 3, 5])
def test_another_version_than_the_expected_one_is_a_conflict(store, expected):
    store.append([Event("A"), Event("B")], "s", NO_STREAM)
    with pytest.raises(ConflictError, match=f"stream 's' is at version 2, not {expected}"):
        store.append([Event("C")], "s", expected)
    assert store.append([Event("C")], "s", 2) == 3
    assert store.append([Event("D")], "s", ANY) == 4


def test_a_stream_that_exists_is_not_begun_again(store):
    store.append([Event("A")], "s", NO_STREAM)
    with pytest.raises(ConflictError):
        store.append([Event("B")], "s", NO_STREAM)
    assert types(store.read_stream("s")) == ["A"]


def test_another_writer_s_events_decide_without_being_read_before(open_store):
    """The second instance has seen nothing of what the first wrote, and reads nothing."""
    first, second = open_store(), open_store()
    first.append([Event("A", tags=["t"])], "s", 0)
    assert second.append([Event("B")], "s", 1) == 2  # what its caller knows from elsewhere is no conflict
    with pytest.raises(ConflictError):
        first.append([Event("C")], "s", 1)
    with pytest.raises(ConflictError):
        second.append([Event("C")], condition=AppendCondition(Query(tags=["t"])))
    assert second.append([Event("C")], condition=AppendCondition(Query(tags=["t"]), after=1)) == 3


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        (Query(), True),
        (Query(types=["Defined"]), True),
        (Query(types=["Defined", "Other"]), True),
        (Query(types=["Other"]), False),
        (Query(tags=["course:1"]), True),
        (Query(tags=["course:1", "year:1"]), True),
        (Query(tags=["course:1", "year:2"]), False),
        (Query(types=["Defined"], tags=["course:1"]), True),
        (Query(types=["Other"], tags=["course:1"]), False),
        (Query(types=["Other"]) | Query(tags=["year:1"]), True),
        (Query(types=["Other"]) | Query(tags=["year:2"]), False),
        (Query(types=["Other"]) | Query(), True),
    ],
    ids=repr,
)
def test_a_condition_is_what_the_specification_says(store, query, matches):
    """Items are joined by or; in one, the type is any of its types and the tags are all among the event's."""
    store.append([Event("Defined", tags=["course:1", "year:1"])])
    assert [e.position for e in store.read(query)] == [1] * matches
    for checkpoint in (False, True):
        if checkpoint:
            store.store.checkpoint(force=True)
        if matches:
            with pytest.raises(ConflictError):
                store.append([Event("Next")], condition=AppendCondition(query))
    assert store.append([Event("Next")], condition=AppendCondition(query, after=1)) == 2


def test_every_one_of_several_conditions_must_hold(store):
    store.append([Event("A", tags=["a"]), Event("B", tags=["b"])])
    holds, fails = AppendCondition(Query(tags=["a"]), after=1), AppendCondition(Query(tags=["b"]), after=1)
    with pytest.raises(ConflictError, match="position 2"):
        store.append([Event("C")], condition=[holds, fails])
    assert store.append([Event("C")], condition=[holds]) == 3


def test_writers_who_share_a_transaction_see_each_other(open_store):
    """Of those who want the same, one gets it in each round; nobody is refused who has no conflict."""
    store = open_store()
    refused, done = [], []
    begin = threading.Barrier(16)

    def write(number):
        begin.wait()
        course = f"course:{number % 2}"
        try:
            done.append(store.append([Event("S", tags=[course])], condition=AppendCondition(Query(tags=[course]))))
            store.append([Event("O")], f"own-{number}", NO_STREAM)
        except ConflictError:
            refused.append(number)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(done) == 2
    assert len(refused) == 14
    assert len(list(store.read(Query(types=["S"])))) == 2
    assert [e.position for e in store.read()] == [1, 2, 3, 4]


def test_appends_that_follow_each_other_share_a_transaction(store):
    begin, done = threading.Barrier(8), []

    def write(number):
        begin.wait()
        done.extend(store.append([Event("A"), Event("B")], "s") for _ in range(5))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(done) == list(range(2, 81, 2))
    assert [(e.position, e.version) for e in store.read_stream("s")] == [(n, n) for n in range(1, 81)]


def test_an_append_with_ids_is_made_once(open_store):
    first, second = open_store(), open_store()
    events = [Event("A", b"1", id="a"), Event("B", b"2", id="b")]
    assert first.append(events, "s", 0) == 2
    assert first.append(events, "s", 0) == 2
    assert second.append(events, "s", 0) == 2
    assert second.append(events, "s", condition=AppendCondition(Query())) == 2
    first.store.checkpoint(force=True)
    assert open_store().append(events, "s", 0) == 2
    assert first.find("b") == 2
    assert first.find("c") == 0


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        ("s", [Event("A", b"other", id="a"), Event("B", b"2", id="b")]),
        ("s", [Event("A", b"1", id="a"), Event("C", id="c")]),
        ("s", [Event("C", id="c"), Event("A", b"1", id="a")]),
        ("s", [Event("B", b"2", id="b"), Event("A", b"1", id="a")]),
        ("other", [Event("A", b"1", id="a"), Event("B", b"2", id="b")]),
        ("s", [Event("A", b"1", id="a"), Event("C")]),
    ],
)
def test_an_id_names_one_event_for_ever(store, stream, events):
    store.append([Event("A", b"1", id="a"), Event("B", b"2", id="b")], "s")
    with pytest.raises(BadRequestError, match="was used before"):
        store.append(events, stream)
    assert store.head == 2


def test_several_streams_are_appended_to_together_or_not_at_all(store):
    store.append([Event("A")], "one")
    with pytest.raises(ConflictError, match="'two' is at version 0, not 1"):
        store.append_all([StreamEvents([Event("B")], "one", 1), StreamEvents([Event("C")], "two", 1)])
    assert store.head == 1
    assert store.append_all([StreamEvents([Event("B")], "one", 1), StreamEvents([Event("C")], "two", 0)]) == 3
    assert store.store.sequence.counter == 2


def test_objects_and_a_reader_s_position_go_along_in_one_wal(store):
    store.append([Event("Before") for _ in range(7)])
    before = store.store.sequence.counter
    store.append([Event("A")], "s", 0, along=[Put("note", "n", b"1"), store.mark("reader", 7)])
    assert store.store.sequence.counter == before + 1
    assert store.store.read_object("note", "n")[0] == b"1"
    assert store.marked("reader") == 7
    with pytest.raises(ConflictError):
        store.append([Event("B")], "s", 0, along=[Delete("note", "n")])
    assert store.store.read_object("note", "n")[0] == b"1"


def test_a_change_group_guards_an_append_too(store):
    token = store.store.change_groups_token(["g"])
    assert store.append([Event("A")], token=token) == 1
    with pytest.raises(ConflictError):
        store.append([Event("B")], token=token)


def test_events_larger_than_the_coordinator_takes_go_to_storage_first(open_store):
    store = open_store(options=Options(background=False, inline_limit=1000))
    events = [Event("Big", bytes([number % 256]) * 700, tags=["t"]) for number in range(300)]
    assert store.append(events, "s", 0) == 300
    other = open_store()
    assert [e.data for e in other.read_stream("s")] == [event.data for event in events]
    store.store.checkpoint(force=True)
    assert [e.position for e in store.read(Query(tags=["t"]), backwards=True, limit=3)] == [300, 299, 298]
    assert [e.version for e in store.read_stream("s", after=100, until=103)] == [101, 102, 103]


def test_a_page_of_a_query_is_bounded_by_its_head(store):
    for number in range(10):
        store.append([Event("A" if number % 2 else "B", tags=["t"])])
    found = store.read(Query(types=["A"]), limit=2)
    assert found.head == 4  # what comes after the second was not seen
    assert [e.position for e in found] == [2, 4]
    assert store.read(Query(types=["A"])).head == 10
    assert store.read(Query(types=["A"]), limit=100).head == 10
    assert store.read(Query(types=["A"]), backwards=True, limit=1).head == 10


def test_positions_are_the_same_after_an_export_and_an_import(store, tmp_path):
    for number in range(20):
        store.append([Event("A", b"%d" % number, tags=[f"t:{number % 3}"], id=f"e{number}")], f"s{number % 2}")
    before = list(store.read())
    exported = io.BytesIO()
    store.store.export(exported)
    for form in (exported.getvalue(), agola_form(store)):
        with agola_core.open_events(tmp_path / uuid.uuid4().hex, data_types=["note"], options=OPTIONS) as other:
            other.append([Event("Gone")], "gone")
            other.store.import_(io.BytesIO(form))
            assert list(other.read()) == before
            assert [e.position for e in other.read(Query(tags=["t:1"]))] == list(range(2, 21, 3))
            assert other.version("gone") == 0
            assert other.append([Event("B")], "s0", 10) == 21
            assert other.append([Event("A", b"0", tags=["t:0"], id="e0")], "s0") == 1


def lose(part):
    """Leave out the first line that has a text."""

    def change(lines):
        index = next(number for number, line in enumerate(lines) if part in line)
        return lines[:index] + lines[index + 1 :]

    return change


def replace(part, other):
    def change(lines):
        assert any(part in line for line in lines)
        return [line.replace(part, other) for line in lines]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose(b'"agola.event"'), "do not follow position 0"),
        (lose(b'"agola.event-stream"'), "do not fit their index"),
        (lose(b'"agola.event-head"'), "do not fit their index"),
        (lose(b'"agola.event-tag"'), "do not fit their index"),
        (lose(b'"agola.event-type"'), "do not fit their index"),
        (lose(b'"agola.event-id"'), "do not fit their index"),
        (replace(b'"id":"e3"', b'"id":"e33"'), "do not fit their index"),
        (replace(b'"id":"0000000000000007"', b'"id":"0000000000000077"'), "do not follow position 6"),
        (replace(b'"agola.event","data":"', b'"agola.event","data":"AAAA'), "do not follow|not a batch"),
    ],
)
def test_events_that_are_not_whole_are_not_imported(store, change, message):
    for number in range(8):
        store.append([Event("A", b"%d" % number, tags=["t"], id=f"e{number}")], f"s{number % 2}")
    before = list(store.read())
    lines = agola_form(store).replace(b"}{", b"}\n{").split(b"\n")
    with pytest.raises(BadRequestError, match=message):
        store.store.import_(io.BytesIO(b"\n".join(change(lines))))
    assert list(store.read()) == before
    store.store.import_(io.BytesIO(b"\n".join(lines)))
    assert list(store.read()) == before


def agola_form(store):
    exported = io.BytesIO()
    store.store.export(exported, agola_core.ExportFormat.AGOLA)
    return exported.getvalue()


def test_a_subscription_goes_on_from_what_is_there_to_what_comes(open_store):
    store, other = open_store(options=Options()), open_store(options=Options())
    store.append([Event("A", tags=["t"]), Event("B")])
    store.store.checkpoint(force=True)
    store.append([Event("C", tags=["t"])])
    with other.subscribe(Query(tags=["t"]), after=0) as subscription:
        assert [subscription.next(60).position for _ in range(2)] == [1, 3]
        assert subscription.next(0) is None
        store.append([Event("D")])
        store.append([Event("E", tags=["t"])])
        assert subscription.next(60).position == 5
        other.store.checkpoint(force=True)
        other.append([Event("F", tags=["t"])])
        assert subscription.next(60).position == 6


def test_a_closed_subscription_lets_its_reader_go(store):
    subscription = store.subscribe()
    reader = threading.Thread(target=lambda: list(subscription))
    reader.start()
    subscription.close()
    reader.join(60)
    assert not reader.is_alive()


def test_what_is_closed_gives_no_more_and_marks_nothing(tmp_path):
    store = agola_core.open_events(tmp_path, options=OPTIONS)
    store.append([Event("A"), Event("B"), Event("C")])
    readers = [store.subscribe(after=0, name="s"), store.consume("c")]
    feed = store.store.watch()
    store.append([Event("D")])
    store.append([Event("E")])
    assert feed.next(timeout=0) is not None
    feed.close()
    with pytest.raises(ClosedError):
        feed.next(timeout=0)
    for reader in readers:
        event = reader.next(timeout=0)
        reader.ack()
        reader.close()
        with pytest.raises(ClosedError, match="subscription"):
            reader.next(timeout=0)
        for acknowledged in (None, event):
            with pytest.raises(ClosedError, match="subscription"):
                reader.ack(acknowledged)
        assert list(reader) == []
        assert store.marked(reader._name) == 1
    others = [store.subscribe(after=0, name="s"), store.consume("c"), store.store.watch(store.store.sequence)]
    store.append([Event("F")])
    store.append([Event("G")])
    for other in others:
        assert other.next(timeout=0) is not None
    store.close()
    for other in others:
        with pytest.raises(ClosedError, match=r"(store|datamanager) was closed"):
            other.next(timeout=0)
    for closed in (store, store.store):
        with pytest.raises(ClosedError), closed:
            pytest.fail("entered")


def test_a_reader_s_arguments_are_checked(store):
    store.append([Event("A")])
    for wrong in ("x", float("nan")):
        for reader in (store.subscribe(after=0), store.consume("c"), store.store.watch()):
            with pytest.raises(BadRequestError, match="a timeout is"):
                reader.next(timeout=wrong)
            reader.close()
    reader = store.subscribe(after=0, name="s")
    for wrong in (3, Event("A")):
        with pytest.raises(BadRequestError, match="ack takes an event"):
            reader.ack(wrong)
    with pytest.raises(BadRequestError, match="a query is a Query"):
        store.consume("k", "oops")
    for wrong in (lambda: Query(["A"]) | None, lambda: Query() | "A", lambda: Query(["A"], alternatives=("B",))):
        with pytest.raises(BadRequestError, match="a query is a Query"):
            wrong()


def test_a_named_subscription_goes_on_where_it_acknowledged(open_store):
    store = open_store()
    for number in range(5):
        store.append([Event(f"T{number}")])
    with store.subscribe(name="reader") as subscription:
        events = [subscription.next(0) for _ in range(3)]
        subscription.ack(events[1])
        assert store.marked("reader") == 2
    with open_store().subscribe(name="reader") as again:
        assert again.next(0).position == 3
        again.ack()
    assert open_store().marked("reader") == 3
    with store.subscribe() as nameless, pytest.raises(BadRequestError, match="without a name"):
        nameless.ack()


def test_one_of_a_group_reads_and_another_takes_over(open_store):
    first, second = open_store(), open_store()
    first.append([Event("A"), Event("B"), Event("C")])
    one, other = first.consume("group"), second.consume("group")
    assert one.next(0).position == 1
    assert other.next(0) is None
    assert one.next(0).position == 2
    one.ack()
    assert one.next(0).position == 3
    one.close()
    assert other.next(0).position == 3  # the first did not acknowledge it
    other.ack()
    other.close()
    assert first.consume("other group").next(0).position == 1


def test_who_has_lost_its_turn_writes_nothing(open_store):
    first, second = open_store(), open_store()
    first.append([Event("A"), Event("B")])
    one, other = first.consume("group"), second.consume("group")
    with pytest.raises(FencedError, match="not the turn"):
        one.ack()
    assert one.next(0).position == 1
    assert first.append([Event("Sent")], "mails", along=[first.mark("group", 1)], by=one) == 3
    first.store.coordinator.txn([], [DeleteOp(reader_lock("group"))])  # its lease has ended: it was paused
    assert other.next(0).position == 2
    other.ack()
    with pytest.raises(ConflictError):
        one.ack()
    with pytest.raises(ConflictError):
        first.append([Event("Sent twice")], "mails", along=[first.mark("group", 2)], by=one)
    assert first.version("mails") == 1
    second.store.refresh()
    assert second.marked("group") == 2


def test_a_subscription_ends_with_the_history_it_began_in(store):
    store.append([Event("A")])
    exported = io.BytesIO()
    store.store.export(exported)
    exported.seek(0)
    with store.subscribe(after=0) as subscription:
        store.store.import_(exported)
        with pytest.raises(FencedError):
            subscription.next(0)


def test_events_live_beside_the_objects_of_a_datamanager(tmp_path):
    with agola_core.open(tmp_path, data_types=["note"], options=OPTIONS) as dm:
        dm.write_wal([Put("note", "n", b"1")])
        store = EventStore(dm)
        store.append([Event("A")], "s", 0)
        dm.checkpoint(force=True)
        assert dm.verify() == []
        store.close()  # the datamanager is its opener's
        assert dm.read_object("note", "n")[0] == b"1"
    with agola_core.open_events(tmp_path, options=OPTIONS) as store:
        assert types(store.read_stream("s")) == ["A"]
        assert store.store.read_object("note", "n")[0] == b"1"


def test_nobody_writes_events_as_objects(store, tmp_path):
    with pytest.raises(BadRequestError, match=r"unknown data type 'agola\.event'"):
        store.store.write_wal([Put(EVENTS, "1", b"")])
    with pytest.raises(BadRequestError, match=r"unknown data type 'agola\.event'"):
        store.append([Event("A")], along=[Delete(EVENTS, "0000000000000001")])


@pytest.mark.parametrize("tags", [5, None, [["account:1"]]])
def test_tags_that_are_no_list_of_names_are_refused(tags):
    with pytest.raises(BadRequestError, match="tags are a list of names, not"):
        Event("A", tags=tags)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "at least one event"),
        ((Event("A"),), "a list"),
        ((["A"],), "expected Event, not str"),
        (([Event("")],), "not a type"),
        (([Event("A\0")],), "not a type"),
        (([Event("A" * 401)],), "not a type"),
        (([Event("A", "text")],), "data must be bytes, not str"),
        (([Event("A", tags=[""])],), "tags"),
        (([Event("A", metadata={1: 2})],), "metadata"),
        (([Event("A", metadata=None)],), "metadata"),
        (([Event("A", metadata=[])],), "metadata"),
        (([Event("A", metadata={"a": 1 << 70})],), "metadata"),
        (([Event("A", metadata={"a": "\ud800"})],), "metadata"),
        (([Event("A", tags=[7])],), "tags"),
        (([Event("A", id=None)],), "id"),
        (([Event("A", metadata={"a": object()})],), "metadata"),
        (([Event("A", id="x"), Event("B", id="x")],), "twice"),
        (([Event("A", id=7)],), "id"),
        (([Event("A")], "s\0"), "stream"),
        (([Event("A")], "s", -1), "expected version"),
        (([Event("A")], None, 0), "needs a stream"),
    ],
)
def test_what_is_malformed_is_refused_with_its_place(store, arguments, message):
    with pytest.raises(BadRequestError, match=message):
        store.append(*arguments)
    assert store.head == 0


def test_an_empty_name_of_a_stream_is_refused(store):
    for call in (
        lambda: store.append([Event("A")], stream=""),
        lambda: store.append([Event("A")], "", 0),
        lambda: store.append_all([StreamEvents([Event("A")], "")]),
    ):
        with pytest.raises(BadRequestError, match="stream: 1 to 400 bytes of text"):
            call()
    assert store.append([Event("A")], stream=None) == store.append_all([StreamEvents([Event("A")])]) - 1 == 1
    assert [event.stream for event in store.read()] == ["", ""]


@pytest.mark.parametrize("wrong", [{"after": -1}, {"until": "1"}, {"limit": -1}])
def test_a_malformed_range_is_refused(store, wrong):
    with pytest.raises(BadRequestError):
        store.read(**wrong)
    with pytest.raises(BadRequestError):
        store.read_stream("s", **wrong)


def test_a_directory_without_a_store_becomes_one(tmp_path):
    with pytest.raises(NotFoundError):
        agola_core.open(tmp_path / "new")
    with agola_core.open_events(tmp_path / "new", options=OPTIONS) as store:
        assert store.head == 0
        assert list(store.read()) == []
        assert list(store.read_stream("s")) == []
    with agola_core.open_events(tmp_path / "new", options=OPTIONS) as store:
        assert store.append([Event("A")]) == 1


TAKER = textwrap.dedent("""
    import sys
    import agola_core
    from agola_core.events import AppendCondition, Event, Query

    where, name, wanted = sys.argv[1:4]
    won = 0
    with agola_core.open_events(where) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        for seat in range(int(wanted)):
            query = Query(tags=[f"seat:{seat}"])
            try:
                store.append([Event("Taken", name.encode(), tags=[f"seat:{seat}"])], condition=AppendCondition(query))
                won += 1
            except agola_core.ConflictError:
                pass
    print(won, flush=True)
""")


def test_two_processes_take_each_seat_once(tmp_path):
    agola_core.open_events(tmp_path).close()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, str(tmp_path), name, "40"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    won = [int(process.communicate(timeout=100)[0]) for process in processes]
    with agola_core.open_events(tmp_path, options=OPTIONS) as store:
        seats = [event.tags for event in store.read()]
    assert len(seats) == len(set(seats)) == sum(won) == 40


class CountingStorage:
    """A real storage that counts the ranges which are read of data files."""

    def __init__(self, storage):
        self._storage = storage
        self.ranges = 0

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def open_reader(self, path):
        return CountingReader(self, self._storage.open_reader(path))


class CountingReader:
    remote = False

    def __init__(self, counts, reader):
        self._counts = counts
        self._reader = reader

    def read(self, offset, length):
        self._counts.ranges += 1
        return self._reader.read(offset, length)

    def close(self):
        self._reader.close()


def test_a_read_of_a_large_store_costs_few_range_requests(tmp_path):
    """As the document has it: r runs; the index costs one for each, and each batch one at most."""
    storage = CountingStorage(open_storage(str(tmp_path / "storage")))
    with contextlib.closing(open_coordinator(str(tmp_path / "coordinator.db"))) as coordinator:
        dm = DataManager(coordinator, storage, [EVENTS], Options(background=False, checkpoint_bytes=1 << 30))
        store = EventStore(dm)
        for part in range(3):  # each run is more than twice as large as the next
            for number in range(4000 >> 2 * part):
                data = random.Random(number).randbytes(120)
                store.append([Event("E", data, tags=[f"t:{number % 50}"])], f"s{number % 100}")
            dm.checkpoint(force=True)
        dm.close()
        dm = DataManager(coordinator, storage, None, Options(background=False))
        store = EventStore(dm)
        runs = len(dm._log.view.manifest.runs)
        assert runs == 3
        assert len(list(store.read())) == store.head == 5250  # every file has been opened

        def ranges(read):
            storage.ranges = 0
            result = read()
            return storage.ranges, result

        cost, version = ranges(lambda: store.version("s17"))
        assert cost <= 1
        assert version == 53
        cost, events = ranges(lambda: list(store.read_stream("s18", after=10, until=20)))
        assert len(events) == 10
        assert cost <= runs + 10
        assert ranges(lambda: next(store.read(after=3000, limit=1)).position)[0] <= runs
        cost, position = ranges(lambda: next(store.read(Query(tags=["t:7"]), after=100, limit=1)).position)
        assert cost <= runs + 1
        assert position == 108
        assert ranges(lambda: next(store.read_stream("s19", backwards=True, limit=1)).version)[0] <= runs + 2
        condition = AppendCondition(Query(tags=["none"]))
        assert ranges(lambda: store.append([Event("F")], condition=condition))[0] <= runs
        condition = AppendCondition(Query(tags=["t:7"]), after=5250)
        assert ranges(lambda: store.append([Event("F")], condition=condition))[0] == 0
        dm.close()
    storage.close()


def test_what_is_no_query_and_no_condition_is_told(tmp_path):
    with agola_core.open_events(tmp_path) as store:
        for wrong in ("A", None, 5):
            with pytest.raises(BadRequestError, match="a query is a Query"):
                store.read(wrong)
            with pytest.raises(BadRequestError, match="a query is a Query"):
                store.subscribe(wrong)
        with pytest.raises(BadRequestError, match="a condition is an AppendCondition"):
            store.append([Event("A")], condition=Query())
        assert store.head == 0


def test_a_mark_past_the_newest_event_is_refused(tmp_path):
    with open_events(tmp_path) as one, open_events(tmp_path) as other:
        with pytest.raises(BadRequestError, match="position 1 lies after the newest event, at 0"):
            one.mark("reader", 1)
        position = other.append([Event("A")])
        one.append([Event("B")], along=[one.mark("reader", position)])  # which another process saw first
        assert one.marked("reader") == 1


def test_a_condition_past_the_newest_event_is_refused(open_store):
    first, second = open_store(), open_store()
    for after in (1, 10**9):
        with pytest.raises(BadRequestError, match=f"position, {after}, lies after the newest event, at 0"):
            first.append([Event("A")], condition=AppendCondition(Query(), after=after))
    read = second.append([Event("A")])  # which the first has not seen yet
    assert first.append([Event("B")], condition=AppendCondition(Query(), after=read)) == read + 1
    with pytest.raises(BadRequestError, match="position, 3, lies after the newest event, at 2"):
        second.append([Event("B")], condition=[AppendCondition(Query(["C"]), after=3), AppendCondition(Query(["D"]))])
    assert (first.head, second.append([Event("C", id="c")])) == (2, 3)


def test_a_closed_event_store_names_itself(tmp_path):
    with open_events(tmp_path, data_types=["note"]) as owned:
        owned.append([Event("A")], "s")
        with EventStore(owned.store) as lent:
            pass
        assert owned.version("s") == 1  # what was lent stays open
    lent.close()
    for store in (owned, lent):
        for call in (
            lambda store: store.append([Event("B")]),
            lambda store: store.append_all([StreamEvents([Event("B")], "s")]),
            lambda store: store.read(),
            lambda store: store.read_stream("s"),
            lambda store: store.version("s"),
            lambda store: store.find("id"),
            lambda store: store.head,
            lambda store: store.mark("reader", 0),
            lambda store: store.marked("reader"),
            lambda store: store.subscribe(),
            lambda store: store.consume("group"),
        ):
            with pytest.raises(ClosedError, match="the event store was closed"):
                call(store)
        assert repr(store).startswith("<EventStore (closed) on <DataManager of note")


def test_events_of_a_past_state_are_read_only(tmp_path):
    with open_events(tmp_path) as store:
        store.append([Event("A", tags=["t"], id="a")], "s")
        at = store.store.sequence
        store.append([Event("B")], "s", along=[store.mark("reader", 1)])
        store.store.checkpoint(force=True)
    for past in (open_events(tmp_path, at=at), EventStore(agola_core.open(tmp_path, at=str(at)))):
        with past:
            assert [event.type for event in past.read_stream("s")] == ["A"]
            assert [event.type for event in past.read(Query(tags=["t"]), backwards=True)] == ["A"]
            assert (past.version("s"), past.head, past.find("a"), past.marked("reader")) == (1, 1, 1, 0)
            for call in (
                lambda past: past.append([Event("C")]),
                lambda past: past.mark("reader", 1),
                lambda past: past.subscribe(),
                lambda past: past.consume("group"),
            ):
                with pytest.raises(ForbiddenError, match="the events of a past state are only read"):
                    call(past)
        past.store.close()
    with open_events(tmp_path) as store:
        assert (store.head, store.marked("reader")) == (2, 1)
    with pytest.raises(BadRequestError, match="stands on an open datamanager, not on str"):
        EventStore("bank")
