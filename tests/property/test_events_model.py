"""Two event stores on one store against a plain list: every condition, crash, checkpoint and export agrees with it."""

import contextlib
import io
import itertools
import tempfile
import uuid
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import agola_core
from agola_core import ConflictError, Options, Put
from agola_core.events import AppendCondition, Event, Query, StreamEvents
from agola_core.runtime import faultpoints
from agola_core.runtime.faultpoints import InjectedFaultError

OPTIONS = Options(
    background=False, inline_limit=100, block_size=60, file_size=200, retain_wals=2, retain_manifests=2, grace_period=0
)
STREAMS = ["a", "a-1", "ä"]
TAGS = ["x", "x:1", "y"]
TYPES = ["S", "T", "TT"]

instances = st.integers(0, 1)
streams = st.sampled_from(["", *STREAMS])
events = st.builds(
    Event,
    st.sampled_from(TYPES),
    st.binary(max_size=40),
    tags=st.lists(st.sampled_from(TAGS), max_size=3),
    metadata=st.dictionaries(st.sampled_from(["by", "for"]), st.text(max_size=3), max_size=1),
)
appended = st.lists(events, min_size=1, max_size=4)
simple = st.builds(Query, st.sets(st.sampled_from(TYPES), max_size=2), st.sets(st.sampled_from(TAGS), max_size=2))
queries = st.one_of(simple, st.builds(lambda one, other: one | other, simple, simple))


class EventsMachine(RuleBasedStateMachine):
    """Appends with every kind of condition by two instances; what is in the list is in the store."""

    @initialize()
    def open(self):
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name)
        self.log = []
        self.objects = {}
        self.ids = itertools.count()
        self.stores = [self.open_one(), self.open_one()]

    def open_one(self):
        return agola_core.open_events(self.path, data_types=["note"], options=OPTIONS)

    def wipe_coordinator(self):
        for file in self.path.glob("coordinator.db*"):
            file.unlink()

    def teardown(self):
        if hasattr(self, "stores"):
            for store in self.stores:
                store.close()
            self.directory.cleanup()

    def version(self, stream):
        return sum(name == stream for name, _ in self.log)

    def matching(self, query, after=0):
        return [
            position for position, (_, event) in enumerate(self.log, 1) if position > after and query.matches(event)
        ]

    def add(self, stream, given):
        self.log += [(stream, event) for event in given]

    def append(self, instance, allowed, stream, given, expected=None, **conditions):
        """Append, and demand that it is refused exactly when the model says so."""
        try:
            position = self.stores[instance].append(given, stream or None, expected, **conditions)
        except ConflictError:
            assert not allowed
            return
        assert allowed
        self.add(stream, given)
        assert position == len(self.log)

    @rule(instance=instances, stream=streams, given=appended)
    def append_any(self, instance, stream, given):
        self.append(instance, True, stream, given)

    @rule(instance=instances, stream=st.sampled_from(STREAMS), given=appended, off=st.integers(-1, 1))
    def append_expecting(self, instance, stream, given, off):
        expected = max(self.version(stream) + off, 0)
        self.append(instance, expected == self.version(stream), stream, given, expected)

    @rule(instance=instances, stream=streams, given=appended, query=queries, data=st.data())
    def append_on_a_condition(self, instance, stream, given, query, data):
        after = data.draw(st.integers(0, len(self.log)))
        condition = AppendCondition(query, after)
        self.append(instance, not self.matching(query, after), stream, given, condition=condition)

    @rule(instance=instances, given=appended, others=appended, off=st.integers(0, 1), query=simple)
    def append_to_two_streams(self, instance, given, others, off, query):
        allowed = not off and not self.matching(query, len(self.log) // 2)
        appends = [
            StreamEvents(given, "a", self.version("a")),
            StreamEvents(others, "ä", self.version("ä") + off),
        ]
        try:
            position = self.stores[instance].append_all(appends, condition=AppendCondition(query, len(self.log) // 2))
        except ConflictError:
            assert not allowed
            return
        assert allowed
        self.add("a", given)
        self.add("ä", others)
        assert position == len(self.log)

    @rule(instance=instances, given=appended, value=st.binary(max_size=10), expected=st.integers(0, 3))
    def append_along_with_an_object(self, instance, given, value, expected):
        allowed = expected == self.version("a")
        self.append(instance, allowed, "a", given, expected, along=[Put("note", "n", value)])
        if allowed:
            self.objects["n"] = value

    @rule(instance=instances, stream=streams, given=appended)
    def append_twice_with_ids(self, instance, stream, given):
        named = [Event(event.type, event.data, event.tags, event.metadata, f"id-{next(self.ids)}") for event in given]
        first = self.stores[instance].append(named, stream or None)
        self.add(stream, named)
        assert first == len(self.log)
        assert self.stores[1 - instance].append(named, stream or None, 0 if stream else None) == first

    @rule(instance=instances, stream=streams, given=appended, data=st.data())
    def crash_in_an_append(self, instance, stream, given, data):
        """Its writer heard nothing; the ids of its events resolve it."""
        named = [Event(event.type, event.data, event.tags, event.metadata, f"id-{next(self.ids)}") for event in given]
        point = data.draw(st.sampled_from(["commit.before-payload", "commit.before-txn", "commit.after-txn"]))
        store = self.stores[instance]
        with faultpoints.arm(faultpoints.trigger(f"{point}:1:raise")), contextlib.suppress(InjectedFaultError):
            store.append(named, stream or None)
        self.drop(instance)
        position = self.stores[1 - instance].append(named, stream or None)
        self.add(stream, named)
        assert position == len(self.log)

    def drop(self, instance):
        self.stores[instance].store._store.log.close()
        self.stores[instance].close()
        self.stores[instance] = self.open_one()

    @rule(instance=instances)
    def checkpoint(self, instance):
        assert self.stores[instance].store.checkpoint(force=True)

    @rule(instance=instances, data=st.data())
    def crash_in_a_checkpoint(self, instance, data):
        point = data.draw(st.sampled_from(sorted(p for p in faultpoints.declared() if p.startswith("checkpoint."))))
        with faultpoints.arm(faultpoints.trigger(f"{point}:1:raise")), contextlib.suppress(InjectedFaultError):
            self.stores[instance].store.checkpoint(force=True)
        self.drop(instance)

    @rule(instance=instances)
    def clean_and_collect(self, instance):
        self.stores[instance].store.clean_up()
        for store in self.stores:
            store.store.refresh()
        self.stores[instance].store.collect_garbage()

    @rule(instance=instances)
    def compact(self, instance):
        self.stores[instance].store.compact()

    @rule()
    def export_and_import(self):
        exported = io.BytesIO()
        self.stores[0].store.export(exported)
        exported.seek(0)
        self.stores[1].close()
        self.stores[0].append([Event("lost")])
        self.stores[0].store.import_(exported)
        self.stores[1] = self.open_one()

    @rule()
    def recover_from_storage(self):
        self.stores[0].store.sync()
        for store in self.stores:
            store.close()
        self.wipe_coordinator()
        self.stores = [self.open_one(), self.open_one()]

    @rule(instance=instances)
    def verify(self, instance):
        assert self.stores[instance].store.verify() == []

    @precondition(lambda self: self.log)
    @rule(
        instance=instances, query=queries, data=st.data(), limit=st.none() | st.integers(0, 4), backwards=st.booleans()
    )
    def read(self, instance, query, data, limit, backwards):
        store = self.stores[instance]
        store.store.refresh()
        after, until = (data.draw(st.integers(0, len(self.log))) for _ in range(2))
        wanted = [position for position in self.matching(query, after) if position <= until]
        wanted = (wanted[::-1] if backwards else wanted)[:limit]
        found = store.read(query, after=after, until=until, limit=limit, backwards=backwards)
        head = found.head
        assert [event.position for event in found] == wanted
        stopped = limit is not None and len(wanted) == limit and not backwards
        assert head == ((wanted[-1] if wanted else after) if stopped else until)

    @rule(instance=instances, stream=st.sampled_from(STREAMS), data=st.data(), limit=st.none() | st.integers(0, 4))
    def read_a_stream(self, instance, stream, data, limit):
        store = self.stores[instance]
        store.store.refresh()
        versions = range(1, self.version(stream) + 1)
        after, until = (data.draw(st.integers(0, len(versions) + 1)) for _ in range(2))
        wanted = [version for version in versions if after < version <= until]
        found = store.read_stream(stream, after=after, until=until, limit=limit)
        assert found.version == len(versions)
        assert [event.version for event in found] == wanted[:limit]
        back = store.read_stream(stream, after=after, until=until, limit=limit, backwards=True)
        assert [event.version for event in back] == wanted[::-1][:limit]

    @rule(instance=instances, query=queries, data=st.data())
    def subscribe(self, instance, query, data):
        after = data.draw(st.integers(0, len(self.log)))
        self.stores[instance].store.refresh()
        with self.stores[instance].subscribe(query, after) as subscription:
            for position in self.matching(query, after):
                assert subscription.next(timeout=0).position == position
            assert subscription.next(timeout=0) is None

    @invariant()
    def both_have_the_list(self):
        if not hasattr(self, "stores"):
            return
        for store in self.stores:
            store.store.refresh()
            assert store.head == len(self.log)
            found = [
                (event.stream, Event(event.type, event.data, event.tags, event.metadata, event.id), event.version)
                for event in store.read()
            ]
            seen = dict.fromkeys(STREAMS, 0)
            for (stream, event), (found_stream, found_event, version) in zip(self.log, found, strict=True):
                assert (stream, event) == (found_stream, found_event)
                if stream:
                    seen[stream] += 1
                    assert version == seen[stream]
            assert dict(store.store.list_objects("note")) == self.objects
            assert {name: store.version(name) for name in STREAMS} == seen


EventsMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestEvents = EventsMachine.TestCase


def test_two_event_stores_on_etcd_agree_with_the_list(agola_etcd):
    stores = itertools.count()
    run = uuid.uuid4().hex

    class EtcdEventsMachine(EventsMachine):
        def __init__(self):
            super().__init__()
            self.wipe_coordinator()

        def wipe_coordinator(self):
            self.url = agola_etcd.url(f"events-{run}/{next(stores)}")

        def open_one(self):
            storage = str(self.path / "storage")
            return agola_core.open_events(storage=storage, coordinator=self.url, data_types=["note"], options=OPTIONS)

    run_state_machine_as_test(
        EtcdEventsMachine,
        settings=settings(
            max_examples=5, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
