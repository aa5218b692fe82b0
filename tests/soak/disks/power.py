"""R2: the power goes at any instant, and any legal part of what was not synced goes with it.

A trial records a store's life of a few processes (each may be killed between any two calls), then picks instants
of it. For each it lays out what the disk may hold, storage and coordinator at the same instant, opens that, and
compares it with what had been acknowledged by then.
"""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from agola_core import Durability, Put
from agola_core.objectstorage.posix.storage import PosixFlatStorage, PosixStorage
from tests.soak.disks.disk import Disk, Fate, Fates
from tests.soak.disks.recorder import Recorder
from tests.soak.processes.kill import MEMORY, EmbeddedStore, State, content, difference, work
from tests.soak.trial import Campaign, Say, Violation, run_child

PROCESSES = 3
CUTS = 30
_LAST_CALLS = (80, 400)

Plant = Callable[[], None]
"""Plants a bug in the process that is recorded, so that tests see it found."""


def trial(seed: int, cuts: int = CUTS, plant: Plant = lambda: None) -> Counter[str]:
    """Record one store's life, and cut its power at some instants.

    Raises:
        Violation: Something acknowledged was lost, something refused was seen, or a repair was needed.
    """
    rng = random.Random(seed)
    directory = Path(tempfile.mkdtemp(prefix="agola-soak-", dir=MEMORY))
    counts: Counter[str] = Counter()
    try:
        durability = rng.choice([Durability.COORDINATOR, Durability.STORAGE])
        make_store = partial(EmbeddedStore, make_storage=rng.choice([PosixStorage, PosixFlatStorage]))
        root = directory / "recorded"
        root.mkdir()
        life = _record(make_store, root, durability, rng, plant, counts)
        instants = sorted(rng.choices(range(len(life) + 1), k=cuts))
        for number, (instant, disk, states) in enumerate(_at(life, instants)):
            where = f"seed {seed}, cut {number} after record {instant} of {len(life)}"
            counts["crash states"] += 1
            counts["changes not synced"] += disk.waiting()
            cut = directory / f"cut-{number}"
            cut.mkdir()
            kind, fates = _fates(rng, disk.waiting())
            counts[f"cut with {kind}"] += 1
            disk.cut(cut, fates, rng)
            _look(make_store(cut), durability, states, f"{where}, with {kind}")
            shutil.rmtree(cut)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return counts


def _record(
    make_store: Callable[..., EmbeddedStore],
    root: Path,
    durability: Durability,
    rng: random.Random,
    plant: Plant,
    counts: Counter[str],
) -> list[Any]:
    life: list[Any] = []
    for number in range(PROCESSES):
        last = rng.randint(1, rng.choice(_LAST_CALLS)) if number < PROCESSES - 1 else 0
        work_seed = rng.randrange(1 << 60)

        def process(say: Say, number: int = number, last: int = last, work_seed: int = work_seed) -> None:
            plant()
            ids = random.Random(work_seed)
            store = make_store(root, new_uuid=lambda: f"{ids.getrandbits(128):032x}")
            with Recorder(root, say, last).recording():
                with store.open(durability, 2 * number) as dm:
                    found = content(dm)
                    dm.sync()  # what was seen lasts once something after it was synced
                    say(["is", found])
                work(store, durability, 2 * number + 1, found, work_seed, say)

        ended = run_child(process)
        if ended.status not in {0, -signal.SIGKILL}:
            raise Violation(f"a recorded process ended with {ended.status}: {ended.said[-1:]}")
        counts["processes killed between two calls"] += ended.status != 0
        life += ended.said
    counts["calls"] += sum(record[0] == "call" for record in life)
    return life


def _at(life: list[Any], instants: list[int]) -> Iterator[tuple[int, Disk, list[State]]]:
    """Yield the disk at each instant, with the states that may be found then."""
    disk, done = Disk(), 0
    states: list[State] = [{}]
    for instant in instants:
        for record in life[done:instant]:
            match record:
                case ["call", call]:
                    disk.apply(call)
                case ["is", found]:
                    if found not in states:
                        raise Violation(f"record {done}: a process found {found}, neither of {states}")
                    states = [found]
                case ["begin", after]:
                    states = [states[0], after]
                case ["done"]:
                    states = [states[1]]
                case ["refused"]:
                    states = [states[0]]
                case _:
                    raise Violation(f"not expected: {record}")
        done = instant
        yield instant, disk, states


def _fates(rng: random.Random, waiting: int) -> tuple[str, Fates]:
    """Return a way in which power is lost, by its name."""
    one, order = rng.randrange(waiting or 1), count()
    match rng.randrange(5):
        case 0:
            return "nothing unsynced", lambda: Fate.LOST
        case 1:
            return "everything", lambda: Fate.WHOLE
        case 2:
            return "one change missing", lambda: Fate.LOST if next(order) == one else Fate.WHOLE
        case 3:
            return "one unsynced change", lambda: Fate.WHOLE if next(order) == one else Fate.LOST
        case _:
            return "any part", lambda: rng.choice(list(Fate))


def _look(store: EmbeddedStore, durability: Durability, states: list[State], where: str) -> None:
    """Open what is left, compare it, and go on with it."""

    def look(say: Say) -> None:
        with store.open(durability, 100) as dm:
            say(content(dm))
            say([str(finding) for finding in dm.verify()])
            dm.write_wal([Put("a", "after", b"power")])
            dm.checkpoint(force=True)
            dm.collect_garbage()
        with store.open(durability, 101) as dm:
            say(content(dm))
            say([str(finding) for finding in dm.verify()])

    ended = run_child(look)
    if ended.status != 0:
        raise Violation(f"{where}: the store does not open and go on: {ended.said[-1]}")
    found, findings, later, later_findings = ended.said
    if findings or later_findings:
        raise Violation(f"{where}: verify found {findings}, and later {later_findings}")
    if found not in states:
        raise Violation(f"{where}: found {difference(found, states[0])} beside what was acknowledged")
    if later != {**found, "a/after": "power"}:
        raise Violation(f"{where}: went on to {difference(later, found)}")


CAMPAIGN = Campaign("power", "crash states after a loss of power, SQLite and posix", trial)
