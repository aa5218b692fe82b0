"""The campaign of histories: processes and threads write and read one store at the same time."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import agola_core
from agola_core import Options, Put
from agola_core.datamanager import DataManager
from agola_core.errors import ConflictError, NotFoundError, UnknownOutcomeError
from tests.soak.histories.history import Read, Record, Refusal, Unknown, Write, violations
from tests.soak.processes.kill import MEMORY
from tests.soak.trial import Campaign, Say, Violation, run_children

PROCESSES, THREADS, OPERATIONS, GROUPS = 2, 3, 25, 3
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Write, Read, Refusal, Unknown)}
_OPTIONS = Options(checkpoint_wals=20, sync_interval=0.05, retain_wals=5, checkpoint_interval=1.0)


def trial(seed: int) -> Counter[str]:
    """Record one history of two processes, and check it.

    Raises:
        Violation: No one order explains it.
    """
    directory = Path(tempfile.mkdtemp(prefix="agola-soak-", dir=MEMORY))
    try:
        history = record_history(directory, seed)
        found = violations(history)
        if found:
            raise Violation(f"seed {seed}: {found[:3]}")
        counts = Counter(type(item).__name__.lower() for item in history)
        counts["histories"] += 1
        return counts
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def record_history(directory: Path, seed: int) -> list[Record]:
    """Return what the threads of all processes did and saw."""

    def work(number: int, say: Say) -> None:
        with agola_core.open(directory, data_types=["object"], options=_OPTIONS) as dm:
            threads = [
                threading.Thread(target=_client, args=(dm, seed * 100 + number * 10 + index, say))
                for index in range(THREADS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    with agola_core.open(directory, data_types=["object"], options=Options(background=False)):
        pass
    history: list[Record] = []
    for ended in run_children([lambda say, number=number: work(number, say) for number in range(PROCESSES)]):
        if ended.status != 0:
            raise Violation(f"seed {seed}: a process ended with {ended.status}: {ended.said[-1:]}")
        history += [_KINDS[name](*fields) for name, *fields in ended.said]
    return history


def _client(dm: DataManager, seed: int, say: Say) -> None:
    rng = random.Random(seed)
    lock = threading.Lock()

    def tell(record: Record) -> None:
        with lock:
            say([type(record).__name__, *record])

    for number in range(OPERATIONS):
        group = f"g{rng.randrange(GROUPS)}"
        read, token = _read(dm, group)
        tell(read)
        if rng.random() < 0.4:
            continue
        value = f"{os.getpid()}-{seed}-{number}"
        start = time.monotonic()
        try:
            written = dm.write_wal([Put("object", group, value.encode())], token)
        except ConflictError:
            tell(Refusal(start, time.monotonic(), group, token.groups[group], value))
        except UnknownOutcomeError:
            tell(Unknown(start, group, token.groups[group], value))
        else:
            end = time.monotonic()
            tell(Write(start, end, group, token.groups[group], written.sequence, written.groups[group], value))


def _read(dm: DataManager, group: str) -> tuple[Read, Any]:
    start = time.monotonic()
    dm.refresh()
    try:
        data, token = dm.read_object("object", group, [group])
    except NotFoundError:
        token = dm.change_groups_token([group])
        while token.groups[group]:  # made since
            try:
                data, token = dm.read_object("object", group, [group])
                break
            except NotFoundError:
                token = dm.change_groups_token([group])
        else:
            data = b""
    return Read(start, time.monotonic(), group, token.groups[group], data.decode()), token


CAMPAIGN = Campaign("histories", "concurrent histories of two processes, checked for strict serializability", trial)
