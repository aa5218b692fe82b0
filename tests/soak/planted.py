"""R7: bugs planted in the processes that a campaign watches, to see that it finds them.

`python -m tests.soak.planted NAME` ends with 0 when the bug was found, and 1 when it was not.
"""

from __future__ import annotations

import sys

import apsw

from agola_core.coordinator.sqlite_database import Database
from agola_core.objectstorage import durable
from tests.soak import power
from tests.soak.trial import Violation

_SEEDS = range(5)
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


BUGS = {
    bug.__name__: bug for bug in (skip_syncs_of_directories, commit_without_syncs, trust_directories_that_are_there)
}


def main(name: str) -> int:
    for seed in [*_SEEDS, 3001]:
        try:
            power.trial(seed, power.CUTS if seed not in _SEEDS else _CUTS, BUGS[name])
        except Violation as violation:
            print(f"found: {violation}")
            return 0
    print("not found")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
