"""What a store does while nothing happens: how often it looks, renews and reads."""

from contextlib import closing

import apsw

from agola_core.coordinator import PutOp
from agola_core.coordinator import lock as leases
from agola_core.coordinator.sqlite import watch
from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator
from agola_core.runtime import clock
from agola_core.runtime.processes.file_events import FileEvents
from agola_core.runtime.threads.supervisor import Loop


class _Poller:
    """Lets the poller of a coordinator's watches run in this thread: `rounds` are (whether events came, then what)."""

    def __init__(self, coordinator, rounds):
        self.hub = coordinator._hub
        self.rounds = iter(rounds)
        self.pauses = []
        self.hub._wait = self._wait

    def _wait(self, pause, gap):
        self.pauses.append(pause)
        came, then = next(self.rounds, (False, self.hub._stop_polling.set))
        then()
        return came

    def run(self):
        self.hub._poll()
        return self.pauses


def test_the_looks_after_a_write_end_as_soon_as_nobody_writes(tmp_path):
    nothing = list
    with closing(SQLiteCoordinator(tmp_path / "c.db")) as coordinator:
        lease = coordinator.grant_lease(60)
        coordinator._hub.wrote = False
        rounds = [(True, lambda: coordinator.keep_alive(lease)), (False, nothing), (False, nothing)]
        assert _Poller(coordinator, rounds).run() == [watch._SHORTEST_POLL, watch._POLL, *2 * [watch._LONGEST_POLL]]


def test_the_looks_after_a_write_go_on_while_another_process_writes(tmp_path):
    path = tmp_path / "c.db"
    with closing(SQLiteCoordinator(path)) as coordinator, closing(apsw.Connection(str(path))) as other:
        start = coordinator.txn([], [PutOp("a", b"")]).revision
        coordinator._hub._committed = False
        with closing(SQLiteCoordinator(path)) as writer:
            writing = writer._database.writer
            rounds = [
                (True, lambda: other.execute("BEGIN IMMEDIATE")),
                *[(False, list)] * 6,  # 2, 4, 8 ... milliseconds: it may commit at any time
                (False, lambda: (other.execute("ROLLBACK"), writer.txn([], [PutOp("b", b"")]))),
            ]
            pauses = _Poller(coordinator, rounds).run()
            assert not writing.in_transaction
        assert pauses[:8] == [0.001, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064]
        assert pauses[8] == watch._LONGEST_POLL
        assert coordinator._hub.revision == start + 1  # seen by the look that knew that nobody wrote any more


def test_an_idle_coordinator_looks_for_writes_and_for_ended_leases_at_the_same_instants(tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "boot_clock", lambda: 100.75)
    with (
        closing(FileEvents(tmp_path, ["c.db"])) as events,
        closing(SQLiteCoordinator(tmp_path / "c.db")) as coordinator,
    ):
        hub, waits = coordinator._hub, []
        hub._events, events.wait = events, waits.append
        hub._wait(watch._LONGEST_POLL, 0.0)
        assert [*waits, coordinator._sweep_pause()] == [0.25, 0.25]


def test_the_keepers_of_a_machine_renew_their_leases_at_the_same_instants(tmp_path, monkeypatch):
    now = [100.0]
    for module in (leases, clock):
        monkeypatch.setattr(module, "boot_clock", lambda: now[0])
    with closing(SQLiteCoordinator(tmp_path / "c.db")) as coordinator:
        keepers, ends = [], []
        for now[0] in (100.0, 101.0, 103.5):
            keepers.append(leases.LeaseKeeper(coordinator, 12.0))
            ends.append(now[0] + keepers[-1]._pause())
        assert ends == [104.0, 104.0, 104.0]  # never later than after a third of their time
        for keeper in keepers:
            keeper.close()


def test_rounds_of_a_few_seconds_are_at_the_same_instants_and_never_late(monkeypatch):
    monkeypatch.setattr(clock, "boot_clock", lambda: 1003.25)
    pauses = {interval: Loop("loop", list, interval=interval)._pause() for interval in (1.0, 2.0, 5.0)}
    assert pauses == {1.0: 0.75, 2.0: 0.75, 5.0: 1.75}
    assert [Loop("loop", list, interval=interval)._pause() for interval in (None, 0.0, 0.25, 3600.0)] == [
        None,
        0.0,
        0.25,
        3600.0,  # what is rare does not come early
    ]
    assert Loop("loop", list, interval=lambda: 2.0)._pause() == 2.0
