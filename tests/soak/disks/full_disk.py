"""A store on a real file system of a few megabytes, which is filled and freed while the store is written to.

A full disk is told as such, nothing is acknowledged that is not kept, what is there can be read, and the same process
goes on once there is room. The file system is a tmpfs in a mount namespace of its own, so nothing is left behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import msgspec

import agola_core
from agola_core import AgolaError, Durability, Options, Put
from agola_core.datamanager import DataManager
from agola_core.datamanager.log.commit import outcome_resolver
from agola_core.errors import OutOfSpaceError, UnknownOutcomeError
from agola_core.objectstorage.posix.storage import PosixFlatStorage, PosixStorage
from agola_core.runtime import faultpoints
from tests.soak.disks.errors import attempt, go_on
from tests.soak.processes.kill import TYPES, EmbeddedStore, State, content
from tests.soak.trial import Campaign, Say, Skipped, Violation, run_child

ROUNDS = 6
_SIZE = 4 << 20
_OPERATIONS = 12
_LEFT = (0, 0, 4 << 10, 16 << 10, 48 << 10, 160 << 10)
_GO_ON_SECONDS = 30.0
_NEW_MOUNTS, _PRIVATE, _RECURSIVE = 0x00020000, 1 << 18, 1 << 14


class Filler:
    """Takes the room of a file system, and gives it back.

    Args:
        directory: A directory of it.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / "filler"
        self._directory = directory

    def fill(self, left: int) -> None:
        """Take all but some bytes."""
        with self._file.open("ab") as file, contextlib.suppress(OSError):
            while (free := self._free() - left) > 0:
                file.write(bytes(min(free, 1 << 20)))
                file.flush()

    def free(self) -> None:
        """Give everything back."""
        self._file.unlink(missing_ok=True)

    def _free(self) -> int:
        status = os.statvfs(self._directory)
        return status.f_bavail * status.f_frsize


def trial(seed: int) -> Counter[str]:
    """Let one store meet a full disk some times.

    Raises:
        Skipped: This process may not mount a file system.
        Violation: Something acknowledged was lost, the error was another, or the store did not go on.
    """
    directory = Path(tempfile.mkdtemp(prefix="agola-soak-"))
    try:
        ended = run_child(partial(_live, directory, seed))
        if ended.said[:1] == ["skipped"]:
            raise Skipped("mounting a tmpfs is not permitted")
        if ended.status != 0:
            raise Violation(f"seed {seed}: {ended.said[-1][1]}")
        return Counter(ended.said[0])
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def mount(directory: Path, size: int) -> bool:
    """Mount a tmpfs on a directory for this process and those that it starts; return False where that is refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    refused = (
        libc.unshare(_NEW_MOUNTS)
        or libc.mount(b"none", b"/", None, _PRIVATE | _RECURSIVE, None)
        or libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", 0, f"size={size}".encode())
    )
    return not refused


def _live(directory: Path, seed: int, say: Say) -> None:
    if not mount(directory, _SIZE):
        say("skipped")
        return
    logging.disable()
    outcome_resolver._RESOLVE_SECONDS = 0.5
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    filler = Filler(directory)
    store = EmbeddedStore(directory / "store", rng.choice([PosixStorage, PosixFlatStorage]))
    durability = rng.choice([Durability.COORDINATOR, Durability.STORAGE])
    state: State = {}
    for number in range(ROUNDS):
        where = f"round {number}"
        if rng.random() < 0.3:
            filler.fill(rng.choice(_LEFT))
            _open_full(store, durability, number, counts)
            filler.free()
        with store.open(durability, number) as dm:
            state = _write_full(dm, rng, filler, state, counts, where)
            state = go_on(dm, [state], where)
        with store.open(durability, number) as dm:
            state = go_on(dm, [state], f"{where}, opened anew")
    _run_full(directory / "loops", rng, filler, counts)
    say(counts)


def _open_full(store: EmbeddedStore, durability: Durability, age: int, counts: Counter[str]) -> None:
    try:
        with store.open(durability, age):
            counts["openings on a full disk"] += 1
    except OutOfSpaceError:
        counts["openings refused"] += 1


def _write_full(
    dm: DataManager, rng: random.Random, filler: Filler, state: State, counts: Counter[str], where: str
) -> State:
    """Fill the disk, now or in the middle of an operation, and do some operations until it is freed again."""
    wait = rng.choice([0, 0, 1, 2, 5, 9])
    left = rng.choice(_LEFT)
    if not wait:
        filler.fill(left)

    def strike(_: str) -> None:
        nonlocal wait
        wait -= 1
        if wait == 0:
            filler.fill(left)
        elif wait < 0 and rng.random() < 0.03:  # in the middle of something there is room again, or none
            filler.free()
            if rng.random() < 0.5:
                filler.fill(rng.choice(_LEFT))

    with faultpoints.arm(strike):
        for _ in range(_OPERATIONS):
            states = [state]
            try:
                state, states = attempt(dm, rng, state, states)
                counts["operations done"] += 1
                continue
            except OutOfSpaceError:
                counts["operations refused"] += 1
            except UnknownOutcomeError:
                counts["outcomes not known"] += 1
                filler.free()
                dm.refresh()
            except AgolaError as error:
                raise Violation(f"{where}: a full disk is told as {error!r}") from error
            found = content(dm)  # reads need no room
            if found not in states:
                raise Violation(f"{where}: found {found} on a full disk, none of {states}")
            state = found
    filler.free()
    return state


def _run_full(directory: Path, rng: random.Random, filler: Filler, counts: Counter[str]) -> None:
    """The same with the loops at work: they live on, and catch up."""
    options = Options(sync_interval=0.01, checkpoint_wals=10, checkpoint_interval=0.2, retain_wals=5, grace_period=0)
    acknowledged: dict[str, bytes] = {}
    tried: set[str] = set()
    with agola_core.open(directory, data_types=list(TYPES), options=options) as dm:
        for number in range(120):
            if number in {30, 80}:
                filler.fill(rng.choice(_LEFT))
            if number in {60, 110}:
                filler.free()
            key, data = f"k{number}", rng.randbytes(rng.choice([10, 3000]))
            tried.add(key)
            try:
                dm.write_wal([Put("a", key, data)])
                acknowledged[key] = data
            except OutOfSpaceError:
                counts["writes refused beside loops"] += 1
            except UnknownOutcomeError:
                counts["outcomes not known"] += 1
        end = time.monotonic() + _GO_ON_SECONDS
        newest = dm.sequence
        while dm.status().synced < str(newest) or not all(dm.status().loops.values()):
            if time.monotonic() > end:
                raise Violation(f"the loops did not go on: {dm.status()}")
            time.sleep(0.02)
        _check_all(dm, acknowledged, tried)
    quiet = msgspec.structs.replace(options, background=False)
    with agola_core.open(directory, data_types=list(TYPES), options=quiet) as dm:
        _check_all(dm, acknowledged, tried)
    counts["writes acknowledged beside loops"] += len(acknowledged)


def _check_all(dm: DataManager, acknowledged: dict[str, bytes], tried: set[str]) -> None:
    found = dict(dm.list_objects("a"))
    lost = [key for key, data in acknowledged.items() if found.get(key) != data]
    findings = [str(finding) for finding in dm.verify()]
    if lost or findings or found.keys() - tried:
        raise Violation(f"beside loops: lost {lost}, verify found {findings}")


CAMPAIGN = Campaign("full-disk", "lives of a store on a file system that is filled and freed, SQLite and posix", trial)
