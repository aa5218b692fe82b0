"""Maintenance mode: the key, those who follow it, the gate of a service, and the barrier of an import."""

import io
import threading

import pytest

import agola_core
from agola_core import BadRequestError, ConflictError, Options, Put, maintenance
from agola_core.coordinator.factory import open_coordinator
from agola_core.errors import DeadlineError, MaintenanceError, UnavailableError
from agola_core.maintenance import Gate, MemberState, Participant


@pytest.fixture
def coordinator(tmp_path):
    opened = open_coordinator(str(tmp_path / "coordinator.db"))
    yield opened
    opened.close()


class Parts:
    """Takes nothing but objects, behind a barrier."""

    sections = frozenset()

    def __init__(self, barrier):
        self.barrier = barrier

    def check(self, data_type, object_id, data):
        pass

    def operations(self):
        return ()

    def undo(self):
        pass


class Service:
    """Counts its starts and stops; may be told to fail or to hang."""

    def __init__(self):
        self.running = False
        self.starts = 0
        self.fails = False
        self.hangs = False
        self.begun = threading.Event()

    def serve(self, context):
        self.starts += 1
        self.begun.set()
        if self.fails:
            raise UnavailableError("the disk is gone")
        if self.hangs:
            ended = threading.Event()
            context.on_cancel(ended.set)
            ended.wait(60)
            context.check()
        self.running = True

    def pause(self):
        self.running = False


@pytest.fixture
def join(coordinator):
    joined = []

    def start(name, service, store="", ttl=10.0):
        participant = Participant(
            coordinator, name, store=store or name, serve=service.serve, pause=service.pause, ttl=ttl
        )
        joined.append(participant)
        participant.start()
        return participant

    yield start
    for participant in joined:
        participant.close()


def settle(coordinator, enabled):
    return maintenance.wait_settled(coordinator, enabled=enabled, timeout=30)


def test_turning_on_or_off_twice_is_refused_as_in_agola(coordinator):
    with pytest.raises(BadRequestError, match=r"^maintenance mode already disabled$"):
        maintenance.disable(coordinator)
    maintenance.enable(coordinator)
    with pytest.raises(BadRequestError, match=r"^maintenance mode already enabled$"):
        maintenance.enable(coordinator)
    assert maintenance.status(coordinator).enabled
    maintenance.disable(coordinator)
    assert maintenance.status(coordinator) == maintenance.MaintenanceStatus(False, True, "", ())


def test_every_instance_enters_and_leaves(coordinator, join):
    one, two = Service(), Service()
    join("one", one)
    join("two", two)
    assert one.running
    assert {member.state for member in maintenance.status(coordinator).instances} == {MemberState.SERVING}
    for turn in (2, 3):
        maintenance.enable(coordinator)
        found = settle(coordinator, True)
        assert [member.name for member in found.instances] == ["one", "two"]
        assert not one.running
        assert not two.running
        maintenance.disable(coordinator)
        settle(coordinator, False)
        assert one.running
        assert (one.starts, two.starts) == (turn, turn)


def test_off_and_on_again_at_once_ends_in_the_newer_maintenance(coordinator, join):
    service = Service()
    join("one", service)
    for _ in range(5):
        maintenance.enable(coordinator)
        maintenance.disable(coordinator)
    maintenance.enable(coordinator)
    settle(coordinator, True)
    assert not service.running
    assert maintenance.barrier(coordinator, "one")


def test_an_instance_that_starts_in_maintenance_does_not_serve(coordinator, join):
    maintenance.enable(coordinator)
    service = Service()
    assert join("one", service).state is MemberState.MAINTENANCE
    assert service.starts == 0


def test_a_service_that_cannot_start_does_not_keep_its_instance_out_of_maintenance(coordinator, join):
    """Agola waits without end for a service that never becomes ready."""
    service = Service()
    join("one", service)
    maintenance.enable(coordinator)
    settle(coordinator, True)
    service.fails = True
    maintenance.disable(coordinator)
    with pytest.raises(DeadlineError, match=r"one .* is leaving, because the disk is gone"):
        maintenance.wait_settled(coordinator, enabled=False, timeout=2)
    maintenance.enable(coordinator)
    settle(coordinator, True)
    service.fails = False
    maintenance.disable(coordinator)
    settle(coordinator, False)
    assert service.running


def test_a_start_that_hangs_is_given_up_when_the_mode_changes(coordinator, join):
    service = Service()
    join("one", service)
    maintenance.enable(coordinator)
    settle(coordinator, True)
    service.hangs = True
    service.begun.clear()
    maintenance.disable(coordinator)
    assert service.begun.wait(30)
    maintenance.enable(coordinator)
    settle(coordinator, True)
    assert not service.running


def test_the_first_start_reports_its_failure(coordinator, join):
    service = Service()
    service.fails = True
    with pytest.raises(UnavailableError, match="the disk is gone"):
        join("one", service)


def test_waiting_ends_when_somebody_turns_the_mode_back(coordinator):
    maintenance.enable(coordinator)
    with pytest.raises(ConflictError, match="turned on by somebody else"):
        maintenance.wait_settled(coordinator, enabled=False)


def test_the_barrier_is_fenced_against_those_who_are_not_in_maintenance(tmp_path):
    options = Options(background=False)
    with agola_core.open(tmp_path, data_types=["n"], options=options) as dm:
        dm.write_wal([Put("n", "kept", b"")])
        exported = io.BytesIO()
        dm.export(exported)
        dm.write_wal([Put("n", "newer", b"")])
        coordinator, name = dm.coordinator, dm.options.instance

        def import_(meanwhile=lambda: None):
            calls = []

            def barrier():
                found = maintenance.barrier(coordinator, name)
                if calls:  # between the last check and the switch
                    meanwhile()
                calls.append(found)
                return found

            exported.seek(0)
            return dm.import_(exported, parts=Parts(barrier))

        with pytest.raises(BadRequestError, match=r"^not in maintenance mode$"):
            import_()
        maintenance.enable(coordinator)
        late = Participant(coordinator, "late", store="x", serve=lambda _: None, pause=lambda: None)
        late._publish(MemberState.STARTING)  # it has not looked at the key yet
        with pytest.raises(ConflictError, match=r"late \(pid \d+ on .*\) is starting"):
            import_()
        late.close()
        with (
            agola_core.open(tmp_path, data_types=["n"], options=options),
            pytest.raises(ConflictError, match="others have the store open"),
        ):
            import_()
        with pytest.raises(BadRequestError, match=r"^not in maintenance mode$"):
            import_(lambda: maintenance.disable(coordinator))
        assert {key for key, _ in dm.list_objects("n")} == {"kept", "newer"}
        maintenance.enable(coordinator)

        def again():
            maintenance.disable(coordinator)
            maintenance.enable(coordinator)

        with pytest.raises(ConflictError):  # another maintenance than the one it began in
            import_(again)
        assert {key for key, _ in dm.list_objects("n")} == {"kept", "newer"}
        import_()
        assert {key for key, _ in dm.list_objects("n")} == {"kept"}


def test_the_gate_drains_then_cuts_off():
    gate = Gate("closed for repairs")
    with pytest.raises(MaintenanceError, match="closed for repairs"), gate.enter():
        pass
    gate.open("service")
    assert gate.wait_open(0)
    inside, leave = threading.Event(), threading.Event()

    def call():
        with gate.enter(leave.set) as service:
            assert service == "service"
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=call)
    thread.start()
    inside.wait(60)
    assert gate.close(0.05) == "service"
    thread.join()
    with pytest.raises(MaintenanceError):
        _ = gate.service
    gate.open("service")
    assert gate.close(60) == "service"
