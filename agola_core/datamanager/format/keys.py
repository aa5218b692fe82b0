"""The datamanager's keys in the coordinator, all built here.

The control keys are few, small, and change with the log, so instances watch only them; the WALs with their payloads
are elsewhere.
"""

from __future__ import annotations

from agola_core.sequence import Sequence

CONTROL = "dm/control/"
LINEAGE = f"{CONTROL}lineage"
HEAD = f"{CONTROL}head"
CHECKPOINT = f"{CONTROL}checkpoint"
SYNC = f"{CONTROL}sync"
GROUPS_FLOOR = f"{CONTROL}groups-floor"
COLLECTION = f"{CONTROL}collection"

WALS = "dm/wals/"
WAL_IDS = "dm/walids/"
GROUPS = "dm/changegroups/"
INSTANCES = "dm/instances/"

INITIALISE_LOCK = "dm/locks/initialise"
CHECKPOINT_LOCK = "dm/locks/checkpoint"
COLLECT_LOCK = "dm/locks/collect"
READER_LOCKS = "dm/locks/reader/"


def wal(sequence: Sequence) -> str:
    """Return the key of a WAL; keys sort as sequences do."""
    return f"{WALS}{sequence}"


def wal_sequence(key: str) -> Sequence:
    """Return the sequence of the WAL at a key."""
    return Sequence.parse(key.removeprefix(WALS))


def wal_id(given: str) -> str:
    """Return the key that remembers the outcome of a WAL whose writer gave it an id."""
    return f"{WAL_IDS}{given}"


def group(name: str) -> str:
    """Return the key of a change group; the revision of its last change is the group's."""
    return f"{GROUPS}{name}"


def reader_lock(name: str) -> str:
    """Return the key of the lock whose holder is the one of a group that reads events."""
    return f"{READER_LOCKS}{name}"


def instance(name: str) -> str:
    """Return the key under which a running instance publishes itself, under a lease."""
    return f"{INSTANCES}{name}"
