"""R3: a call of a procedure, an opening or a recovery fails, or all from one on: of the storage, or of the disk below.

Nothing that was acknowledged is lost, the error is one of ours, and the same process goes on when the fault ends.
"""

from __future__ import annotations

import errno
import logging
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from agola_core import AgolaError, Durability, Put
from agola_core.coordinator.sqlite import settle
from agola_core.datamanager import DataManager
from agola_core.datamanager.log.commit import outcome_resolver
from agola_core.objectstorage.posix.storage import PosixStorage
from agola_pytest.faults.faulty_storage import Fault, FaultyStorage
from tests.soak.disks.failing import FailingDisk
from tests.soak.processes.kill import MEMORY, EmbeddedStore, State, content, difference, operation
from tests.soak.trial import Campaign, Say, Violation, run_child

FAULTS = 12
_MOST_CALLS = 40
_ERRNOS = (errno.EIO, errno.ENOSPC, errno.EACCES)
# A list alone decides nothing but where a lost coordinator is made anew; the datamanager writes on no precondition.
_STORAGE_FAULTS = tuple(fault for fault in Fault if fault is not Fault.PRECONDITION)


def trial(seed: int) -> Counter[str]:
    """Let one store meet some faults, one after the other.

    Raises:
        Violation: Something acknowledged was lost, an error was none of ours, or the store did not go on.
    """
    directory = Path(tempfile.mkdtemp(prefix="agola-soak-", dir=MEMORY))
    try:
        ended = run_child(lambda say: _meet(directory, seed, say))
        if ended.status != 0:
            raise Violation(f"seed {seed}: {ended.said[-1][1]}")
        return Counter(ended.said[0])
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _meet(directory: Path, seed: int, say: Say) -> None:
    logging.disable()
    # A lasting fault does not end while an outcome is waited for.
    outcome_resolver._RESOLVE_SECONDS = settle._SETTLE_SECONDS = 0.5
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    disk = FailingDisk(directory)
    faulty: list[FaultyStorage] = []
    coming: list[Callable[[FaultyStorage], None]] = []

    def make_storage(root: Path) -> FaultyStorage:
        faulty[:] = [FaultyStorage(PosixStorage(root))]
        while coming:
            coming.pop()(faulty[0])
        return faulty[0]

    store = EmbeddedStore(directory, make_storage)
    durability = rng.choice([Durability.COORDINATOR, Durability.STORAGE])
    state: State = {}
    with disk.installed():
        for number in range(FAULTS):
            where = f"fault {number}"
            with store.open(durability, 3 * number) as dm:
                for _ in range(rng.randrange(3)):
                    state, _ = attempt(dm, rng, state)
                name, fail = _fault(rng, disk)
                fail(faulty[0])
                states, error = [state], None
                try:
                    state, states = attempt(dm, rng, state, states)
                except AgolaError as caught:
                    error = caught
                disk.heal()
                faulty[0].heal()
                counts[f"{name}: {type(error).__name__ if error else 'nothing raised, or not reached'}"] += 1
                counts["faults"] += 1
                state = go_on(dm, states, where)
            if rng.random() < 0.6:
                lost = durability is Durability.STORAGE and rng.random() < 0.5
                if lost:
                    store.lose_coordinator()
                what = "recovery" if lost else "opening"
                name, fail = _fault(rng, disk, lists=not lost)
                coming.append(fail)
                counts[f"{what}, {name}: {_open_failing(store, durability, 3 * number + 1, state, where)}"] += 1
                counts["faults of openings"] += 1
                disk.heal()
                coming.clear()
            with store.open(durability, 3 * number + 2) as dm:
                state = go_on(dm, [state], f"{where}, opened anew")
    say(counts)


def _open_failing(store: EmbeddedStore, durability: Durability, age: int, state: State, where: str) -> str:
    """Open a store while something fails; return what was raised."""
    try:
        with store.open(durability, age) as dm:
            found = content(dm)
    except AgolaError as error:
        return type(error).__name__
    if found != state:
        raise Violation(f"{where}: a failing opening found {difference(found, state)}")
    return "nothing raised, or not reached"


def _fault(rng: random.Random, disk: FailingDisk, *, lists: bool = True) -> tuple[str, Callable[[FaultyStorage], None]]:
    """Let the disk fail, or return what lets a storage fail, with its name."""
    at, lasting = rng.randint(1, rng.choice([3, _MOST_CALLS])), rng.random() < 0.5
    often = "lasting" if lasting else "once"
    if rng.random() < 0.5:
        number = rng.choice(_ERRNOS)
        disk.fail(number, at, lasting=lasting)
        return f"disk {errno.errorcode[number]} {often}", lambda _: None
    fault = rng.choice([fault for fault in _STORAGE_FAULTS if lists or fault is not Fault.STALE_LIST])
    return f"storage {fault.name} {often}", lambda storage: storage.fail(fault, at=at, lasting=lasting)


def attempt(
    dm: DataManager, rng: random.Random, state: State, states: list[State] | None = None
) -> tuple[State, list[State]]:
    """Do an operation; `states` always has what may be found, also when it fails."""
    possible = states if states is not None else [state]

    def hear(record: list[object]) -> None:
        match record:
            case ["begin", after]:
                possible[1:] = [after]  # type: ignore[list-item] - a state
            case ["done"]:
                possible[:] = possible[1:]
            case _:
                del possible[1:]

    operation(dm, rng, state, hear)
    return possible[0], possible


def go_on(dm: DataManager, states: list[State], where: str) -> State:
    """Compare what a healthy store has, and write to it."""
    found = content(dm)
    if found not in states:
        raise Violation(f"{where}: found {difference(found, states[0])} beside what was acknowledged")
    dm.write_wal([Put("a", "healthy", where.encode())])
    dm.checkpoint(force=True)
    dm.collect_garbage()
    findings = [str(finding) for finding in dm.verify()]
    if findings:
        raise Violation(f"{where}: verify found {findings}")
    return {**found, "a/healthy": where}


CAMPAIGN = Campaign("errors", "faults of the storage's calls and of the disk's, met one after the other", trial)
