"""The published tests of `eventsourcing` for persistence modules, on this one, and what they do not ask.

Test cases are named through their modules, so that only those made here are collected.
"""

from __future__ import annotations

import shutil
import tempfile
import zlib
from pathlib import Path
from uuid import uuid4

import pytest
from eventsourcing.application import Application
from eventsourcing.cipher import AESCipher
from eventsourcing.dcb import tests as dcb_tests
from eventsourcing.dcb.api import DCBEvent
from eventsourcing.dcb.application import DCBApplication
from eventsourcing.dcb.persistence import DCBInfrastructureFactory
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import (
    InfrastructureFactory,
    InfrastructureFactoryError,
    IntegrityError,
    ProgrammingError,
    StoredEvent,
    Tracking,
)
from eventsourcing.projection import ProjectionRunner
from eventsourcing.tests import application as application_tests
from eventsourcing.tests import persistence, projection
from eventsourcing.utils import Environment, get_topic

import agola_core
from agola_core import Put
from agola_core.events import open_events
from agola_eventsourcing import (
    AgolaAggregateRecorder,
    AgolaApplicationRecorder,
    AgolaDCBRecorder,
    AgolaFactory,
    AgolaProcessRecorder,
    AgolaSnapshotRecorder,
    AgolaTrackingRecorder,
)
from agola_eventsourcing.snapshots import SNAPSHOTS
from agola_eventsourcing.tracking import TRACKING

TYPES = [TRACKING, SNAPSHOTS]


class WithStore:
    def setUp(self):
        super().setUp()
        self.directory = tempfile.mkdtemp()
        self.store = open_events(self.directory, data_types=TYPES)

    def tearDown(self):
        self.store.close()
        shutil.rmtree(self.directory)
        super().tearDown()


class TestAggregateRecorder(WithStore, persistence.AggregateRecorderTestCase):
    def create_recorder(self):
        return AgolaAggregateRecorder(self.store)


class TestSnapshotRecorder(WithStore, persistence.AggregateRecorderTestCase):
    def create_recorder(self):
        return AgolaSnapshotRecorder(self.store, "snapshots")


class TestApplicationRecorder(WithStore, persistence.ApplicationRecorderTestCase):
    def create_recorder(self):
        return AgolaApplicationRecorder(self.store)


class TestTextIds(WithStore, persistence.ApplicationRecorderTestCase):
    def new_originator_id(self):
        return f"thing-{uuid4()}"

    def create_recorder(self):
        return AgolaApplicationRecorder(self.store, "text")


class TestNonInterleaving(WithStore, persistence.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self):
        return AgolaApplicationRecorder(self.store)


class TestTrackingRecorder(WithStore, persistence.TrackingRecorderTestCase):
    def create_recorder(self):
        return AgolaTrackingRecorder(self.store)


class TestProcessRecorder(WithStore, persistence.ProcessRecorderTestCase):
    def create_recorder(self):
        return AgolaProcessRecorder(self.store)


class View(AgolaTrackingRecorder):
    pass


class TestFactory(persistence.InfrastructureFactoryTestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp()
        self.env = Environment("TestCase")
        self.env[InfrastructureFactory.PERSISTENCE_MODULE] = "agola_eventsourcing"
        self.env["AGOLA_DIRECTORY"] = self.directory
        super().setUp()

    def tearDown(self):
        super().tearDown()
        shutil.rmtree(self.directory)

    def expected_factory_class(self):
        return AgolaFactory

    def expected_aggregate_recorder_class(self):
        return AgolaAggregateRecorder

    def expected_application_recorder_class(self):
        return AgolaApplicationRecorder

    def expected_tracking_recorder_class(self):
        return AgolaTrackingRecorder

    def tracking_recorder_subclass(self):
        return View

    def expected_process_recorder_class(self):
        return AgolaProcessRecorder


class TestDCBRecorder(WithStore, dcb_tests.DCBRecorderTestCase):
    def test_append_read(self):
        self._test_append_read(AgolaDCBRecorder(self.store))

    def test_append_subscribe(self):
        self._test_append_subscribe(AgolaDCBRecorder(self.store))


class Settings:
    """Applications by the library's settings alone."""

    def setUp(self):
        super().setUp()
        self.directory = tempfile.mkdtemp()
        self.monkeypatch = pytest.MonkeyPatch()
        self.monkeypatch.setenv("PERSISTENCE_MODULE", "agola_eventsourcing")
        self.monkeypatch.setenv("AGOLA_DIRECTORY", f"{self.directory}/application")
        for name in ("EVENTCOUNTERS", "COUNTERS"):
            self.monkeypatch.setenv(f"{name}_AGOLA_DIRECTORY", f"{self.directory}/{name.lower()}")
            self.monkeypatch.setenv(f"{name}_AGOLA_DATA_TYPES", "counter")

        self.factories = []  # the library's tests leave their applications open
        make = AgolaFactory.__init__

        def noted(factory, env):
            make(factory, env)
            self.factories.append(factory)

        self.monkeypatch.setattr(AgolaFactory, "__init__", noted)

    def tearDown(self):
        for factory in self.factories:
            factory.close()
        self.monkeypatch.undo()
        shutil.rmtree(self.directory)
        super().tearDown()


@pytest.mark.filterwarnings("default:'log' is deprecated")
class TestApplication(Settings, application_tests.ApplicationTestCase):
    pass


class TestExampleApplication(Settings, application_tests.ExampleApplicationTestCase):
    expected_factory_topic = "agola_eventsourcing.factory:AgolaFactory"


class TestExampleApplicationEncrypted(Settings, application_tests.ExampleApplicationTestCase):
    expected_factory_topic = "agola_eventsourcing.factory:AgolaFactory"

    def setUp(self):
        super().setUp()
        self.monkeypatch.setenv("CIPHER_KEY", AESCipher.create_key(32))
        self.monkeypatch.setenv("CIPHER_TOPIC", get_topic(AESCipher))
        self.monkeypatch.setenv("COMPRESSOR_TOPIC", zlib.__name__)

    def tearDown(self):
        stored = b"".join(p.read_bytes() for p in Path(self.directory).rglob("*") if p.is_file())
        assert b"alice@example.com" not in stored
        super().tearDown()


class Counters(AgolaTrackingRecorder, projection.EventCountersView):
    """A view that keeps its counters in the store, in the WALs of their tracking positions."""

    def get_created_event_counter(self):
        return self._count("created")

    def get_subsequent_event_counter(self):
        return self._count("subsequent")

    def incr_created_event_counter(self, tracking):
        self._increment("created", tracking)

    def incr_subsequent_event_counter(self, tracking):
        self._increment("subsequent", tracking)

    def _count(self, name):
        objects = dict(self.store.store.list_objects("counter"))
        return int(objects.get(name, b"0"))

    def _increment(self, name, tracking):
        self.record(tracking, [Put("counter", name, b"%d" % (self._count(name) + 1))])


class TestView(WithStore, projection.EventCountersViewTestCase):
    def construct_event_counters_view(self):
        self.store.close()
        self.store = open_events(f"{self.directory}/view", data_types=[*TYPES, "counter"])
        return Counters(self.store)


class TestProjection(Settings, projection.AggregateEventCountersProjectionTestCase):
    view_class = Counters


class TestDecisionsProjection(Settings, projection.TaggedDecisionCountersProjectionTestCase):
    view_class = Counters
    env = {"MAPPER_TOPIC": "eventsourcing.dcb.msgpack:MessagePackMapper"}  # noqa: RUF012


class TestEventSourcedProjection(Settings, projection.EventSourcedProjectionTestCase):
    pass


# What the library's tests do not ask


class Account(Aggregate):
    @event("Opened")
    def __init__(self, name):
        self.name = name
        self.balance = 0

    @event("Paid")
    def pay(self, amount):
        self.balance += amount


def settings(directory, **more):
    return {"PERSISTENCE_MODULE": "agola_eventsourcing", "AGOLA_DIRECTORY": str(directory), **more}


def test_an_application_goes_on_after_a_checkpoint_and_a_restart(tmp_path):
    env = settings(tmp_path, IS_SNAPSHOTTING_ENABLED="yes")
    application = Application(env)
    account = Account("alice")
    for amount in range(1, 30):
        account.pay(amount)
    application.save(account)
    application.take_snapshot(account.id)
    application.factory.store.store.checkpoint(force=True)
    application.close()
    again = Application(env)
    found = again.repository.get(account.id)
    assert (found.balance, found.version) == (sum(range(1, 30)), 30)
    assert [item.originator_version for item in again.snapshots.get(account.id)] == [30]
    assert again.recorder.max_notification_id() == 30, "a snapshot has no place among the notifications"
    again.close()


def test_two_applications_on_one_directory_see_conflicts(tmp_path):
    one, other = Application(settings(tmp_path)), Application(settings(tmp_path))
    account = Account("alice")
    one.save(account)
    copies = [application.repository.get(account.id) for application in (one, other)]
    for copy in copies:
        copy.pay(1)
    one.save(copies[0])
    with pytest.raises(IntegrityError) as caught:
        other.save(copies[1])
    assert isinstance(caught.value.__cause__, agola_core.ConflictError)
    one.close()
    other.close()


@pytest.mark.parametrize("first", [0, 1])
def test_versions_that_begin_with_zero_are_known_again(tmp_path, first):
    aggregate = uuid4()

    def stored(version):
        return StoredEvent(aggregate, version, "topic", b"%d" % version)

    def recorder():
        return AgolaApplicationRecorder(open_events(tmp_path, data_types=TYPES))

    versions = range(first, first + 5)
    for version in versions:
        one = recorder()
        assert one.insert_events([stored(version)]) == [version + 1 - first]
        for taken in range(first, version + 1):
            with pytest.raises(IntegrityError):
                one.insert_events([stored(taken)])
        with pytest.raises(IntegrityError):
            one.insert_events([stored(version + 2)])
        one.store.close()
    one = recorder()
    assert [event.originator_version for event in one.select_events(aggregate)] == list(versions)
    assert [event.originator_version for event in one.select_events(aggregate, gt=first, lte=first + 2)] == [
        first + 1,
        first + 2,
    ]
    assert [event.originator_version for event in one.select_events(aggregate, lte=first + 2, desc=True, limit=1)] == [
        first + 2
    ]
    one.store.close()


def test_events_of_several_aggregates_mixed_have_the_ids_that_are_read(tmp_path):
    with open_events(tmp_path, data_types=TYPES) as store:
        recorder = AgolaApplicationRecorder(store)
        one, other = uuid4(), uuid4()
        events = [StoredEvent(one, 1, "a", b""), StoredEvent(other, 1, "b", b""), StoredEvent(one, 2, "c", b"")]
        ids = recorder.insert_events(events)
        found = {n.id: (n.originator_id, n.originator_version) for n in recorder.select_notifications(1, 10)}
        assert [found[i] for i in ids] == [(one, 1), (other, 1), (one, 2)]


def test_a_refused_event_leaves_no_tracking_and_the_other_way_round(tmp_path):
    with open_events(tmp_path, data_types=TYPES) as store:
        recorder = AgolaProcessRecorder(store)
        stored = StoredEvent(uuid4(), 1, "topic", b"")
        recorder.insert_events([stored], tracking=Tracking("upstream", 5))
        with pytest.raises(IntegrityError):
            recorder.insert_events([stored], tracking=Tracking("upstream", 6))
        assert recorder.max_tracking_id("upstream") == 5
        with pytest.raises(IntegrityError, match="not after 5"):
            recorder.insert_events([StoredEvent(uuid4(), 1, "topic", b"")], tracking=Tracking("upstream", 5))
        assert recorder.max_notification_id() == 1
        assert recorder.insert_events([], tracking=Tracking("upstream", 7)) == []
        assert recorder.max_tracking_id("upstream") == 7


def test_events_of_no_stream_are_no_notifications(tmp_path):
    with open_events(tmp_path, data_types=TYPES) as store:
        AgolaDCBRecorder(store).append([DCBEvent("Decided", b"", ["course:1"])])
        recorder = AgolaApplicationRecorder(store)
        recorder.insert_events([StoredEvent(uuid4(), 1, "topic", b"")])
        assert [n.id for n in recorder.select_notifications(1, 10)] == [2]
        with recorder.subscribe() as subscription:
            assert next(subscription).id == 2


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({}, "AGOLA_DIRECTORY"),
        ({"AGOLA_DIRECTORY": "s3://bucket/x"}, "s3://bucket/x"),
        ({"AGOLA_DIRECTORY": "x", "ORIGINATOR_ID_TYPE": "number"}, "ORIGINATOR_ID_TYPE"),
        ({"AGOLA_DIRECTORY": "x", "AGOLA_DURABILITY": "never"}, "never"),
        ({"AGOLA_STORAGE": "posix:///x", "AGOLA_COORDINATOR": "nothing://"}, "nothing"),
    ],
)
def test_wrong_settings_are_named(env, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InfrastructureFactoryError, match=message):
        InfrastructureFactory.construct({"PERSISTENCE_MODULE": "agola_eventsourcing", **env})


def test_a_class_of_the_settings_must_be_one_of_ours(tmp_path):
    env = settings(tmp_path, APPLICATION_RECORDER_TOPIC=get_topic(Account))
    with InfrastructureFactory.construct(env) as factory, pytest.raises(InfrastructureFactoryError, match="Account"):
        factory.application_recorder()


def test_a_name_that_no_store_takes_is_a_programming_error(tmp_path):
    with open_events(tmp_path, data_types=TYPES) as store, pytest.raises(ProgrammingError):
        AgolaDCBRecorder(store).append([DCBEvent("a\0b", b"")])


def test_decisions_are_found_by_both_kinds_of_factory(tmp_path):
    factory = DCBInfrastructureFactory.construct(settings(tmp_path))
    assert isinstance(factory.dcb_recorder(), AgolaDCBRecorder)
    factory.close()
    DCBApplication(settings(tmp_path)).close()


def test_a_projection_goes_on_where_it_was(tmp_path):
    env = {
        **settings(tmp_path / "application"),
        "EVENTCOUNTERS_AGOLA_DIRECTORY": str(tmp_path / "view"),
        "EVENTCOUNTERS_AGOLA_DATA_TYPES": "counter",
    }
    for round_ in range(1, 3):
        with ProjectionRunner(
            application_class=Application,
            projection_class=projection.AggregateEventCountersProjection,
            view_class=Counters,
            env=env,
        ) as runner:
            recordings = runner.app.save(Aggregate())
            runner.projection.view.wait(runner.app.name, recordings[-1].notification.id, timeout=30)
            assert runner.projection.view.get_created_event_counter() == round_
            runner.projection.view.store.close()  # its factory is nobody's to close
