"""The time of day jumps, by a second or ten years, back or forth, between operations and in the middle of them.

A process of its own runs under libfaketime, so that whatever asks the time is told the jumped one; clocks that count
from the machine's start go on, as they do when somebody sets the clock. Sequences rise, leases last, nothing that is
needed is collected, nothing is lost.
"""

from __future__ import annotations

import json
import logging
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import msgspec

from agola_core import Durability
from agola_core.datamanager import DataManager
from agola_core.datamanager.identity.instance import list_instances
from agola_core.errors import ConflictError
from agola_core.runtime import faultpoints
from tests.soak.disks.errors import attempt
from tests.soak.processes.kill import MEMORY, OPTIONS, EmbeddedStore, State, content, difference
from tests.soak.trial import Campaign, Skipped, Violation

LIVES = 4
_OPERATIONS = 12
_SECONDS = 300
_ROOT = Path(__file__).parents[3]
_DAY = 86_400
_JUMPS = [sign * jump for jump in (1, 3600, _DAY, 365 * _DAY, 3650 * _DAY) for sign in (-1, 1)]
_GRACES = (0.0, 3600.0)


def trial(seed: int, bug: str = "") -> Counter[str]:
    """Run one store's life with the clock jumping.

    Args:
        seed: What it is made from.
        bug: The planted bug that it has (see `planted`).

    Raises:
        Skipped: There is no libfaketime.
        Violation: Something was lost or went back.
    """
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        raise Skipped("there is no libfaketime: install it (Debian: apt-get install faketime)")
    directory = Path(tempfile.mkdtemp(prefix="agola-soak-", dir=MEMORY))
    try:
        file = directory / "clock"
        file.write_text("+0")
        done = subprocess.run(
            [sys.executable, "-m", "tests.soak.processes.clock", str(directory), str(seed), bug],
            cwd=_ROOT,
            env={
                **os.environ,
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(file),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "NO_FAKE_STAT": "1",  # files keep the time that they were written at
            },
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if done.returncode:
        raise Violation(f"seed {seed}: {done.stderr[-3000:]}")
    return Counter(json.loads(done.stdout))


class _Life:
    """A store's life in this process: one datamanager is worked with, another one comes between."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._file = directory / "clock"
        self._store = EmbeddedStore(directory / "store", options=msgspec.structs.replace(
            OPTIONS, grace_period=self._rng.choice(_GRACES)
        ))  # fmt: skip
        self._other: DataManager | None = None
        self._state: State = {}
        self._newest = ""

    def run(self) -> None:
        durability = self._rng.choice([Durability.COORDINATOR, Durability.STORAGE])
        for age in range(LIVES):
            self._jump()
            with self._store.open(durability, age) as dm, self._store.open(durability, age) as self._other:
                with faultpoints.arm(self._strike):
                    for _ in range(_OPERATIONS):
                        self._operate(dm)
                        self._check(dm)
                        if self._rng.random() < 0.3:
                            self._jump()
                self._other.refresh()
                self._check(self._other)
                findings = [str(finding) for finding in dm.verify()]
                if findings:
                    raise Violation(f"life {age}: verify found {findings}")
            if durability is Durability.STORAGE and self._rng.random() < 0.5:
                self._store.lose_coordinator()
                self.counts["coordinators lost"] += 1
            self.counts["lives"] += 1

    def _operate(self, dm: DataManager) -> None:
        states = [self._state]
        try:
            attempt(dm, self._rng, self._state, states)
        except ConflictError:  # an import, while another has the store open
            self.counts["imports refused"] += 1
        self._state = states[0]
        self.counts["operations"] += 1

    def _check(self, dm: DataManager) -> None:
        found = content(dm)
        if found != self._state:
            raise Violation(f"found {difference(found, self._state)} beside what was acknowledged")
        if str(dm.sequence) < self._newest:
            raise Violation(f"sequences went back from {self._newest} to {dm.sequence}")
        self._newest = str(dm.sequence)
        open_now = len(list_instances(dm.coordinator))
        if open_now != 2:
            raise Violation(f"two processes are open, and {open_now} have a lease")

    def _jump(self) -> None:
        to = int(self._rng.choice(_JUMPS))
        part = self._file.with_suffix(".part")
        part.write_text(f"{to:+d}")
        before = time.time()
        part.replace(self._file)
        if abs(time.time() - before) < 0.5 and self.counts["jumps"] == 0:
            raise Violation("the clock did not jump")
        self.counts["jumps"] += 1

    def _strike(self, _: str) -> None:
        """In the middle of something the clock jumps, and the other one may collect, clean or sync."""
        if self._other is None or self._rng.random() > 0.15:
            return
        other, self._other = self._other, None
        try:
            self._jump()
            self.counts["jumps in the middle of something"] += 1
            self._rng.choice([lambda: None, other.sync, other.clean_up, *[other.collect_garbage] * 2])()
        finally:
            self._other = other


def main(directory: str, seed: str, bug: str) -> None:
    """Run a life and print its counts."""
    logging.disable()
    # A sleep whose end has passed when libfaketime sees it, as on a busy machine, would be refused as invalid.
    time.sleep = partial(select.select, [], [], [])
    if bug:
        from tests.soak.planted import BUGS

        BUGS[bug].plant()
    life = _Life(Path(directory), int(seed))
    life.run()
    print(json.dumps(life.counts))


CAMPAIGN = Campaign("clock", "jumps of the clock, between operations and in the middle of them", trial)

if __name__ == "__main__":
    main(*sys.argv[1:])
