"""The nemesis: writers on a three-member etcd and one storage, while members, ways, histories and writers fail.

Afterwards the acknowledged history is checked against the store: nothing acknowledged is lost, nothing refused is
there, no increment of a guarded counter is lost, every stored byte is right. A seed gives the order of events.
"""

import contextlib
import enum
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import agola_core
from agola_core import Options
from agola_core.coordinator import PutOp, open_coordinator
from agola_core.errors import AgolaError, OutOfSpaceError, RecoveryError
from agola_pytest.servers.etcd import control
from tests.support.network import CLIENTS, CuttableCluster, start_cuttable_cluster

WRITERS = 3
_HEALTHY_SECONDS = 90.0
_QUOTA = 40_000_000


class Event(enum.StrEnum):
    """What the nemesis does."""

    KILL_LEADER = "kill-leader"
    KILL_MEMBER = "kill-member"
    PAUSE_LEADER = "pause-leader"
    CUT_LEADER = "cut-leader"
    CUT_MINORITY = "cut-minority"
    CUT_MAJORITY = "cut-majority"
    CUT_ONE_WAY = "cut-one-way"
    PAUSE_WRITER = "pause-writer"
    KILL_WRITER = "kill-writer"
    COMPACT = "compact"
    FILL = "fill"
    RESTORE = "restore"
    WIPE = "wipe"


class Outcome(NamedTuple):
    """What a campaign saw."""

    seed: int
    events: tuple[Event, ...]
    namespaces: bool
    acknowledged: int
    refused: int
    unknown: int
    slowest: float


def campaign(
    directory: Path, *, seed: int, events: int, storage: str = "", tell: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Run a campaign and check what it left.

    Args:
        directory: Where everything goes.
        seed: Gives the order of the events; the same seed, the same order.
        events: How many; every kind comes once before any comes again.
        storage: A storage URL; by default a directory.
        tell: Hears what happens.

    Raises:
        AssertionError: Something acknowledged was lost, something refused is there, or the writers stay stuck.
    """
    chance = random.Random(seed)
    order: list[Event] = []
    while len(order) < events:
        order += chance.sample(list(Event), len(Event))
    order = order[:events]
    with start_cuttable_cluster(directory / "etcd", arguments=[f"--quota-backend-bytes={_QUOTA}"]) as cluster:
        nemesis = Nemesis(directory, cluster, storage or str(directory / "storage"), chance, tell)
        try:
            nemesis.wait_healthy()
            for event in order:
                nemesis.strike(event)
        finally:
            nemesis.stop_writers()
        return nemesis.check(seed, order)


class Nemesis:
    """A campaign under way."""

    def __init__(
        self,
        directory: Path,
        cluster: CuttableCluster,
        storage: str,
        chance: random.Random,
        tell: Callable[[str], None],
    ) -> None:
        self.cluster = cluster
        self._directory = directory
        self._chance = chance
        self._tell = tell
        self._storage = storage
        self._url = cluster.url("nemesis", timeout=5)
        self._slowest = 0.0
        self._writers = [self._start_writer(number) for number in range(WRITERS)]

    def strike(self, event: Event) -> None:
        """Let one thing go wrong, put it right, and wait until every writer writes again."""
        getattr(self, event.replace("-", "_"))()
        took = self.wait_healthy()
        self._tell(f"{event}: every writer wrote again after {took:.1f} s")
        self._slowest = max(self._slowest, took)

    # What goes wrong

    def kill_leader(self) -> None:
        self._kill(self._leader())

    def kill_member(self) -> None:
        self._kill(self._member())

    def _kill(self, number: int) -> None:
        self.cluster.members[number].kill()
        self._hold()
        self.cluster.members[number].start()

    def pause_leader(self) -> None:
        leader = self.cluster.members[self._leader()]
        leader.pause()
        self._hold()
        leader.resume()

    def cut_leader(self) -> None:
        self.cluster.isolate(self._leader())
        self._hold()
        self.cluster.heal()

    def cut_minority(self) -> None:
        self.cluster.isolate(self._member(), clients=True)
        self._hold()
        self.cluster.heal()

    def cut_majority(self) -> None:
        for number in range(2):
            self.cluster.isolate(number)
        self._hold()
        self.cluster.heal()

    def cut_one_way(self) -> None:
        leader = self._leader()
        for number in range(len(self.cluster.members)):
            if number != leader:
                self.cluster.cut(leader, number)
        if self.cluster.namespaces:
            self.cluster.cut(CLIENTS, (leader + 1) % len(self.cluster.members))
        self._hold()
        self.cluster.heal()

    def pause_writer(self) -> None:
        writer = self._chance.choice(self._writers)
        os.kill(writer.pid, signal.SIGSTOP)
        time.sleep(5)  # past its lease
        os.kill(writer.pid, signal.SIGCONT)

    def kill_writer(self) -> None:
        number = self._chance.randrange(WRITERS)
        self._writers[number].kill()
        self._writers[number].wait()
        self._hold()
        self._writers[number] = self._start_writer(number)

    def compact(self) -> None:
        with contextlib.closing(open_coordinator(self._url)) as coordinator:
            coordinator.compact(coordinator.list("", limit=1).revision)

    def fill(self) -> None:
        with contextlib.closing(open_coordinator(self.cluster.url("filler", timeout=5))) as coordinator:
            with contextlib.suppress(OutOfSpaceError):
                for number in range(2 * _QUOTA // 1_000_000):
                    with contextlib.suppress(AgolaError if number % 2 else OutOfSpaceError):
                        coordinator.txn([], [PutOp("filler", os.urandom(1_000_000))])
            self._hold()
            coordinator.compact(coordinator.list("", limit=1).revision)
        for member in self.cluster.members:
            control("defrag", "--command-timeout=60s", endpoint=member.endpoint)
        control("alarm", "disarm", endpoint=self.cluster.members[0].endpoint)

    def restore(self) -> None:
        snapshot = self._directory / "snapshot"
        self.cluster.members[self._leader()].snapshot(snapshot)
        self._hold()  # the writers go on
        self.cluster.kill()
        for member in self.cluster.members:
            member.restore(snapshot)
        self.cluster.start()
        self._recover()

    def wipe(self) -> None:
        self._hold()
        self.cluster.kill()
        for member in self.cluster.members:
            member.wipe()
        self.cluster.start()

    # Help

    def _recover(self) -> None:
        """Do what an operator does: open, and where the store asks for it, recover."""
        for recover in (False, True):
            try:
                agola_core.open(
                    storage=self._storage,
                    coordinator=self._url,
                    data_types=["n"],
                    options=Options(background=False),
                    recover=recover,
                ).close()
                return
            except RecoveryError as error:
                if recover:
                    raise
                self._tell(f"refused: {error}")

    def _hold(self) -> None:
        time.sleep(self._chance.uniform(1.0, 3.0))

    def _member(self) -> int:
        return self._chance.randrange(len(self.cluster.members))

    def _leader(self) -> int:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for number, member in enumerate(self.cluster.members):
                try:
                    answer = json.loads(control("endpoint", "status", "--write-out=json", endpoint=member.endpoint))
                except RuntimeError:
                    continue
                status = answer[0]["Status"]
                if status.get("leader") == status["header"]["member_id"]:
                    return number
        raise AssertionError("there is no leader")

    def _start_writer(self, number: int) -> subprocess.Popen[bytes]:
        with (self._directory / f"writer-{number}.log").open("ab") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.support.writer"),
                    *(self._url, self._storage, str(self._journal(number)), f"w{number}"),
                ],
                stdout=log,
                stderr=log,
            )

    def _journal(self, number: int) -> Path:
        return self._directory / f"writer-{number}.journal"

    def wait_healthy(self) -> float:
        """Wait until every writer has had two more writes acknowledged; return the seconds."""
        started = time.monotonic()
        before = [self._count(number) for number in range(WRITERS)]
        while any(self._count(number) < before[number] + 2 for number in range(WRITERS)):
            for number, writer in enumerate(self._writers):
                assert writer.poll() is None, (self._directory / f"writer-{number}.log").read_text()[-3000:]
            assert time.monotonic() < started + _HEALTHY_SECONDS, "the writers are stuck: " + "; ".join(
                self._journal(number).read_text().splitlines()[-1] for number in range(WRITERS)
            )
            time.sleep(0.05)
        return time.monotonic() - started

    def _count(self, number: int) -> int:
        journal = self._journal(number)
        return journal.read_text().count('"acknowledged"') if journal.exists() else 0

    def stop_writers(self) -> None:
        """End all writers at once."""
        for writer in self._writers:
            writer.kill()
            writer.wait()

    def check(self, seed: int, order: list[Event]) -> Outcome:
        """Compare the journals with the store."""
        entries = [
            json.loads(line)
            for number in range(WRITERS)
            for line in self._journal(number).read_text().splitlines()
            if line.endswith("}")
        ]
        told = {entry["id"]: entry for entry in entries if entry["event"] == "begin"}
        told |= {entry["id"]: entry for entry in entries if "id" in entry and entry["event"] != "begin"}
        by_event = Counter(entry["event"] for entry in told.values())
        with agola_core.open(
            storage=self._storage, coordinator=self._url, data_types=["n"], options=Options(background=False)
        ) as store:
            found = dict(store.list_objects("n"))
            assert store.verify() == []
        counters = {name: int(found.pop(name)) for name in list(found) if name.startswith("counter-")}
        acknowledged = {name for name, entry in told.items() if entry["event"] == "acknowledged"}
        refused = {name for name, entry in told.items() if entry["event"] == "refused"}
        assert not acknowledged - found.keys(), f"acknowledged and lost: {sorted(acknowledged - found.keys())[:5]}"
        assert not refused & found.keys(), f"refused and there: {sorted(refused & found.keys())[:5]}"
        assert not found.keys() - told.keys(), "nobody wrote that"
        assert all(value == name.encode() for name, value in found.items())
        sequences = Counter(entry["sequence"] for entry in told.values() if entry["event"] == "acknowledged")
        assert max(sequences.values()) == 1, "one sequence was given twice"
        for name, value in counters.items():
            assert value == sum(told[one]["group"] == name.removeprefix("counter-") for one in found), name
        unknown = by_event["unknown"] + by_event["begin"]
        return Outcome(
            seed,
            tuple(order),
            bool(self.cluster.namespaces),
            by_event["acknowledged"],
            by_event["refused"],
            unknown,
            self._slowest,
        )
