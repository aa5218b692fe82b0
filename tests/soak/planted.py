"""R7: bugs planted in the processes that a campaign watches, to see that it finds them.

`python -m tests.soak.planted NAME` ends with 0 when the bug was found, 1 when it was not, and 2 when its campaign
cannot run here.
"""

from __future__ import annotations

import errno
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from unittest.mock import patch

import apsw
import msgspec

from agola_core.coordinator.sqlite.database import Database
from agola_core.datamanager.background import checkpoint, sync
from agola_core.datamanager.format import lineages, records
from agola_core.datamanager.format.control import Control
from agola_core.datamanager.identity import binding, instance, opening
from agola_core.datamanager.identity.lineage import NewLineage
from agola_core.datamanager.log.commit import conflict_check
from agola_core.datamanager.sstable import manifest
from agola_core.objectstorage.posix import durable
from tests.soak import rot
from tests.soak.disks import errors, full_disk, power
from tests.soak.histories import concurrent
from tests.soak.parsers import fuzz
from tests.soak.processes import clock, kill, zombie
from tests.soak.trial import Skipped, Violation

_CUTS = 12


def skip_syncs_of_directories() -> None:
    """Names last by chance."""
    durable.sync_directory = lambda path: None


def commit_without_syncs() -> None:
    """The coordinator's bytes last by chance."""
    connect = Database._connect

    def hasty(self: Database) -> apsw.Connection:
        connection = connect(self)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    Database._connect = hasty  # type: ignore[method-assign]


def trust_directories_that_are_there() -> None:
    """A directory that a killed process made is taken as one that lasts."""
    durable._synced = _Everything()


class _Everything(dict[str, int]):
    def get(self, path: str, default: int | None = None) -> int | None:  # type: ignore[override]
        return durable._inode(path)


def note_a_sync_before_it_is_made() -> None:
    """The record says that storage has WALs that are on their way there."""
    make = sync.Syncer._sync_batch

    def early(self: sync.Syncer, control: Control) -> None:
        frames, last = self._from_memory(control) or self._from_coordinator(control)
        self._move_record(control, last, frames[-1])
        make(self, control)

    sync.Syncer._sync_batch = early  # type: ignore[method-assign]


def swallow_errors_of_the_disk() -> None:
    """A write of an object that the disk refused is taken as done, as by a file system that ignores failed syncs."""
    write = durable._write_temporary

    def careless(path: str, pieces: Iterable[bytes]) -> int:
        try:
            return write(path, pieces)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EIO}:
                raise
            return 0

    durable._write_temporary = careless


def take_a_full_disk_for_done() -> None:
    """The same, of a disk that is really full."""
    swallow_errors_of_the_disk()


def number_epochs_by_the_clock() -> None:
    """The newest lineage is the one with the latest time, as in Agola 0.2."""
    switch = opening.switch

    def by_clock(coordinator: Any, storage: Any, new: NewLineage, **options: Any) -> None:
        epoch = int(time.time())
        switch(coordinator, storage, msgspec.structs.replace(new, epoch=epoch), **options)

    opening.switch = by_clock  # type: ignore[assignment]


def publish_without_compares() -> None:
    """A checkpoint is published whatever happened to its lock and to the one before."""
    publish = checkpoint.Checkpointer._publish

    def careless(self: checkpoint.Checkpointer, *arguments: Any) -> None:
        coordinator = self._log.coordinator
        with patch.object(coordinator, "txn", lambda compare, *ops: type(coordinator).txn(coordinator, [], *ops)):
            publish(self, *arguments)

    checkpoint.Checkpointer._publish = careless  # type: ignore[method-assign]
    instance.Lock.check = lambda self: None  # type: ignore[method-assign]


def take_young_payloads_for_kept() -> None:
    """A payload is committed although a collection came after it was written."""
    conflict_check._with_payloads = lambda waiting, collected: waiting


def never_refuse() -> None:
    """Whoever writes late overwrites what it has not seen."""
    conflict_check.ConflictCheck._refusal = lambda self, commit: None  # type: ignore[method-assign]


def trust_what_is_sealed() -> None:
    """Digests of records in storage are not looked at."""
    for module in (manifest, lineages, binding):
        module.decode_checksummed = lambda data, path: data.partition(b"\n")[0]  # type: ignore[attr-defined]


def let_a_parser_raise_what_it_likes() -> None:
    """Errors of a library come out of the parser of WALs."""
    records.DECODE_ERRORS = ()  # type: ignore[misc]


class Bug(NamedTuple):
    """A planted bug.

    Attributes:
        plant: Plants it in this process.
        trial: Runs the trial of a seed that is to find it.
        seeds: Those that are tried.
    """

    plant: Callable[[], None]
    trial: Callable[[int], Counter[str]]
    seeds: Iterable[int]


def _power(plant: Callable[[], None], *seeds: int) -> Bug:
    """In power trials, only what is recorded has the bug."""
    return Bug(plant, lambda seed: power.trial(seed, _CUTS if seed < 5 else 2 * power.CUTS, plant), seeds or range(5))


def _forked(plant: Callable[[], None], trial: Callable[[int], Counter[str]], seeds: Iterable[int]) -> Bug:
    """What is forked off this process has the bug."""

    def planted(seed: int) -> Counter[str]:
        plant()
        return trial(seed)

    return Bug(plant, planted, seeds)


def _clock(plant: Callable[[], None], seeds: Iterable[int]) -> Bug:
    return Bug(plant, lambda seed: clock.trial(seed, plant.__name__), seeds)


BUGS = {
    bug.plant.__name__: bug
    for bug in (
        _power(skip_syncs_of_directories),
        _power(commit_without_syncs),
        _power(trust_directories_that_are_there, 100, 3001, *range(101, 106)),
        _forked(note_a_sync_before_it_is_made, kill.trial, range(20)),
        _forked(swallow_errors_of_the_disk, errors.trial, (25, 36, 53, 71, 80, 84, 93, 96, 101, 104, 108, 137)),
        _forked(take_a_full_disk_for_done, full_disk.trial, range(10)),
        _forked(publish_without_compares, zombie.trial, range(20)),
        _forked(never_refuse, concurrent.trial, range(5)),
        _forked(trust_what_is_sealed, rot.trial, range(20)),
        _forked(let_a_parser_raise_what_it_likes, fuzz.trial, range(3)),
        _clock(number_epochs_by_the_clock, range(10)),
        _clock(take_young_payloads_for_kept, range(20)),
    )
}


def main(name: str) -> int:
    """Look for a bug."""
    bug = BUGS[name]
    for seed in bug.seeds:
        try:
            bug.trial(seed)
        except Violation as violation:
            print(f"found with seed {seed}: {violation}")
            return 0
        except Skipped as reason:
            print(f"skipped: {reason}")
            return 2
    print("not found")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
