"""R3: one call of a procedure fails, or all from one on, to the storage or to the disk below storage and coordinator.

Nothing that was acknowledged is lost, the error is one of ours, and the same process goes on when the fault ends.
"""

from __future__ import annotations

import errno
import logging
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from agola_core import AgolaError, Durability, Put
from agola_core.datamanager import DataManager, outcome
from agola_core.objectstorage.posix import PosixStorage
from agola_pytest.faulty import Fault, FaultyStorage
from tests.soak.failing import FailingDisk
from tests.soak.kill import MEMORY, EmbeddedStore, State, content, difference, operation
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
    outcome._RESOLVE_SECONDS = 0.5  # a lasting fault does not end while an outcome is waited for
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    disk = FailingDisk(directory)
    faulty: list[FaultyStorage] = []

    def make_storage(root: Path) -> FaultyStorage:
        faulty[:] = [FaultyStorage(PosixStorage(root))]
        return faulty[0]

    store = EmbeddedStore(directory, make_storage)
    durability = rng.choice([Durability.COORDINATOR, Durability.STORAGE])
    state: State = {}
    with disk.installed():
        for number in range(FAULTS):
            where = f"fault {number}"
            with store.open(durability, number) as dm:
                for _ in range(rng.randrange(3)):
                    state, _ = attempt(dm, rng, state)
                name = _fault(rng, disk, faulty[0])
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
            with store.open(durability, number) as dm:
                state = go_on(dm, [state], f"{where}, opened anew")
    say(counts)


def _fault(rng: random.Random, disk: FailingDisk, storage: FaultyStorage) -> str:
    at, lasting = rng.randint(1, rng.choice([3, _MOST_CALLS])), rng.random() < 0.5
    often = "lasting" if lasting else "once"
    if rng.random() < 0.5:
        number = rng.choice(_ERRNOS)
        disk.fail(number, at, lasting=lasting)
        return f"disk {errno.errorcode[number]} {often}"
    fault = rng.choice(_STORAGE_FAULTS)
    storage.fail(fault, at=at, lasting=lasting)
    return f"storage {fault.name} {often}"


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
