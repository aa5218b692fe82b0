"""R4: processes are stopped at fault points, past their leases, and go on when others have gone further.

A trial stops one process in each of several procedures of one store at once, or one in an import or a recovery alone.
When their leases have ended another process takes over, checkpoints, cleans and collects. Then they are resumed:
nothing that they do may change what the store is, but for a commit, which may be made then.
"""

from __future__ import annotations

import io
import logging
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from agola_core import AgolaError, Delete, Durability, Put
from agola_core.datamanager import DataManager
from agola_core.datamanager.identity.instance import list_instances
from agola_core.runtime import faultpoints
from tests.soak.processes import kill
from tests.soak.processes.kill import MEMORY, EmbeddedStore, State, content, difference, work
from tests.soak.trial import Campaign, Ended, Say, Started, Violation, run_child, start_child

_ZOMBIE = "zombie"
_WAIT_SECONDS = 60.0
OPTIONS = msgspec.structs.replace(kill.OPTIONS, lock_ttl=1.0, retain_wals=0, retain_manifests=1)

POINTS: dict[str, tuple[str, ...]] = {
    "commit": ("commit.before-payload", "commit.before-txn", "commit.after-txn"),
    "sync": ("sync.before-batch", "sync.before-txn"),
    "checkpoint": (
        "instance.before-lock",
        "checkpoint.before-data-file",
        "checkpoint.before-file-list",
        "checkpoint.before-manifest",
        "checkpoint.before-txn",
        "instance.before-unlock",
    ),
    "clean": ("clean.before-wals", "clean.before-ids", "clean.before-groups"),
    "collect": ("instance.before-lock", "collect.before-barrier", "collect.before-delete", "instance.before-unlock"),
}
ALONE: dict[str, tuple[str, ...]] = {
    "import": ("lineage.before-manifest", "lineage.before-txn", "lineage.before-marker", "import.before-reset"),
    "recovery": (
        "lineage.before-manifest",
        "lineage.before-txn",
        "lineage.before-marker",
        "lineage.before-binding",
    ),
}


class _StoppedWithinError(Exception):
    """A thread of a stopped process is in a transaction of SQLite: nobody else can write until it goes on."""


def make_embedded(directory: Path) -> EmbeddedStore:
    """Return a store on SQLite and posix whose leases last as long as they say."""
    return EmbeddedStore(directory, options=OPTIONS, hours=0)


def trial(seed: int, make_store: Callable[[Path], EmbeddedStore] = make_embedded) -> Counter[str]:
    """Stop some processes of one store, let others go on, and resume them.

    Raises:
        Violation: What the store holds is not what was acknowledged.
    """
    rng = random.Random(seed)
    directory = Path(tempfile.mkdtemp(prefix="agola-soak-", dir=MEMORY))
    counts: Counter[str] = Counter()
    zombies: list[Started] = []
    try:
        store = make_store(directory)
        state = _work(store, {}, rng.randrange(1 << 60), seed)
        if rng.random() < 0.3:
            procedure, points = rng.choice(list(ALONE.items()))
            if procedure == "recovery":
                store.lose_coordinator()
            chosen = [(procedure, rng.choice(points))]
        else:
            chosen = [(procedure, rng.choice(points)) for procedure, points in POINTS.items()]
        for procedure, point in chosen:
            zombie = start_child(partial(_zombie, store, procedure, point, rng.choice([1, 1, 2])))
            if zombie.stopped():
                counts[f"stopped at {point}"] += 1
            else:
                counts["not stopped"] += 1
            zombies.append(zombie)
        try:
            _wait_until_leases_ended(store, seed)
            state = _work(store, state, rng.randrange(1 << 60), seed)
        except _StoppedWithinError:
            counts["stopped within a transaction of SQLite"] += 1
            return counts
        for zombie in zombies:
            zombie.send(signal.SIGCONT)
        ended = [zombie.end() for zombie in zombies]
        counts["zombies"] += len(ended)
        _check(store, state, chosen, ended, seed, rng, counts)
    finally:
        for zombie in zombies:
            zombie.send(signal.SIGKILL)
            zombie.end()
        shutil.rmtree(directory, ignore_errors=True)
    return counts


def _work(store: EmbeddedStore, state: State, work_seed: int, seed: int) -> State:
    """Let a process do random operations, and leave nothing in the coordinator alone; return what the store holds."""

    def task(say: Say) -> None:
        work(store, Durability.STORAGE, 0, state, work_seed, lambda _: None)
        with store.open(Durability.STORAGE, 0) as dm:
            for number in range(3):
                actions = [Put("b", f"large{number}", b"x" * 100), Delete("b", f"large{number - 1}")]
                dm.write_wal(actions, wal_id=f"{work_seed}-{number}")
                dm.checkpoint(force=True)
                dm.clean_up()
                dm.collect_garbage()
            say(content(dm))

    ended = _run(task, seed)
    found: State = ended.said[0]
    return found


def _zombie(store: EmbeddedStore, procedure: str, point: str, hit: int, say: Say) -> None:
    """Do a procedure, and stop on the way."""
    logging.disable()
    hook = faultpoints.trigger(f"{point}:{hit}:stop")
    try:
        if procedure == "recovery":
            with faultpoints.arm(hook), store.open(Durability.STORAGE, 0, name=_ZOMBIE):
                say("done")
            return
        with store.open(Durability.COORDINATOR, 0, name=f"{_ZOMBIE}-{procedure}") as dm:
            if procedure in {"sync", "checkpoint"}:
                dm.write_wal([Put("a", f"{_ZOMBIE}-{procedure}", b"y" * 60)])
            exported = io.BytesIO()
            if procedure == "import":
                dm.export(exported)
                exported.seek(0)
            with faultpoints.arm(hook):
                _procedures(dm, exported)[procedure]()
        say("done")
    except AgolaError as error:
        say(f"{type(error).__name__}: {error}")


def _procedures(dm: DataManager, exported: io.BytesIO) -> dict[str, Callable[[], object]]:
    return {
        "commit": lambda: dm.write_wal([Put("a", _ZOMBIE, b"z" * 100)]),
        "sync": dm.sync,
        "checkpoint": lambda: dm.checkpoint(force=True),
        "clean": dm.clean_up,
        "collect": dm.collect_garbage,
        "import": lambda: dm.import_(exported),
    }


def _wait_until_leases_ended(store: EmbeddedStore, seed: int) -> None:
    def wait(say: Say) -> None:
        coordinator = store._open_coordinator(0)
        end = time.monotonic() + _WAIT_SECONDS
        while list_instances(coordinator) or coordinator.list("dm/locks/").items:
            if time.monotonic() > end:
                raise Violation("the leases of stopped processes do not end")
            time.sleep(0.05)
        coordinator.close()
        say("ended")

    _run(wait, seed)


def _run(task: Callable[[Say], None], seed: int) -> Ended:
    ended = run_child(task)
    if ended.status != 0:
        if "database is locked" in str(ended.said[-1:]):
            raise _StoppedWithinError
        raise Violation(f"seed {seed}: {ended.said[-1:]}")
    return ended


def _check(
    store: EmbeddedStore,
    state: State,
    chosen: list[tuple[str, str]],
    ended: list[Ended],
    seed: int,
    rng: random.Random,
    counts: Counter[str],
) -> None:
    where = f"seed {seed}: {[*zip(chosen, ended, strict=True)]}"
    allowed = [state]
    for (procedure, _), end in zip(chosen, ended, strict=True):
        if end.status != 0 or len(end.said) != 1:
            raise Violation(f"{where}: a zombie ended with {end.status}: {end.said}")
        counts["done all the same" if end.said == ["done"] else f"told {end.said[0].partition(':')[0]}"] += 1
        if procedure == "commit":
            made = {**state, f"a/{_ZOMBIE}": "z" * 100}
            allowed = [made] if end.said == ["done"] else [state, made]
    for lose in (False, True):
        if lose:
            store.lose_coordinator()

        def look(say: Say) -> None:
            with store.open(Durability.STORAGE, 0) as dm:
                found = content(dm)
                dm.sync()
                dm.collect_garbage()
                say([found, content(dm), [str(finding) for finding in dm.verify()]])

        looked = run_child(look)
        if looked.status != 0:
            raise Violation(f"{where}: the store does not open: {looked.said}")
        found, again, findings = looked.said[0]
        if findings or found != again:
            raise Violation(f"{where}: verify found {findings}")
        if found not in allowed:
            raise Violation(f"{where}: found {difference(found, allowed[0])} beside what was acknowledged")
        allowed = [found]


CAMPAIGN = Campaign("zombie", "processes stopped past their leases at fault points, and resumed", trial)
