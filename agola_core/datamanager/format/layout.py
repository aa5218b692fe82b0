"""The datamanager's paths in object storage, all built here.

::

    store.json                                    the store's identity and format version
    lineages/EPOCH-LINEAGE/active.json            marks a lineage that the coordinator switched to
    lineages/EPOCH-LINEAGE/coordinator.json       which coordinator it is in, and a revision that this had reached
    lineages/EPOCH-LINEAGE/walids.json            idempotency keys that a recovery inherited, with outcomes
    lineages/EPOCH-LINEAGE/manifests/NUMBER-NONCE.json
    lineages/EPOCH-LINEAGE/wals/FIRST_LAST-NONCE.wals
                                                  a batch of WALs, named by its first and last sequence
    payloads/UUID.payload                         one large WAL's actions
    data/UUID.data                                sorted entries; shared by manifests and lineages
"""

from __future__ import annotations

import re

from agola_core.sequence import Sequence

STORE = "store.json"
LINEAGES = "lineages/"
PAYLOADS = "payloads/"
DATA = "data/"
LAST_VERIFY = "history/verify.json"

_LINEAGE = re.compile(r"lineages/([0-9a-v]{13})-([0-9a-f]{16})/")
_MANIFEST = re.compile(r".*/manifests/([0-9]{20})-([0-9a-f]{16})\.json")
_BATCH = re.compile(r".*/wals/([0-9a-v-]{27})_([0-9a-v-]{27})-([0-9a-f]{16})\.wals")


def lineage_root(epoch: int, lineage: str) -> str:
    """Return the prefix of a lineage, which ends in "/"."""
    return f"{LINEAGES}{str(Sequence(epoch, 0))[:13]}-{lineage}/"


def parse_lineage_root(path: str) -> tuple[int, str] | None:
    """Return the epoch and the lineage of a path below a lineage's prefix; None for another path."""
    match = _LINEAGE.match(path)
    return (int(match[1], 32), match[2]) if match else None


def root_of_path(path: str) -> str:
    """Return the lineage's prefix of a path; "" for another path."""
    match = _LINEAGE.match(path)
    return match[0] if match else ""


def active_marker(root: str) -> str:
    """Return the path of the marker that a lineage has once the store was switched to it."""
    return f"{root}active.json"


def binding(root: str) -> str:
    """Return the path of the record that names a lineage's coordinator."""
    return f"{root}coordinator.json"


def wal_ids(root: str) -> str:
    """Return the path of the idempotency keys that a lineage inherited from the one before it."""
    return f"{root}walids.json"


def manifests(root: str) -> str:
    """Return the prefix of a lineage's manifests."""
    return f"{root}manifests/"


def manifest(root: str, number: int, nonce: str) -> str:
    """Return the path of a manifest."""
    return f"{manifests(root)}{number:020d}-{nonce}.json"


def parse_manifest(path: str) -> int | None:
    """Return the number of the manifest at a path; None for another path."""
    match = _MANIFEST.fullmatch(path)
    return int(match[1]) if match else None


def wals(root: str) -> str:
    """Return the prefix of a lineage's WAL batches."""
    return f"{root}wals/"


def wal_batch(root: str, first: Sequence, last: Sequence, nonce: str) -> str:
    """Return the path of a batch of WALs."""
    return f"{wals(root)}{first}_{last}-{nonce}.wals"


def parse_wal_batch(path: str) -> tuple[Sequence, Sequence] | None:
    """Return the first and the last sequence of the batch at a path; None for another path."""
    match = _BATCH.fullmatch(path)
    return (Sequence.parse(match[1]), Sequence.parse(match[2])) if match else None


def payload(uuid: str) -> str:
    """Return the path of a large WAL's actions."""
    return f"{PAYLOADS}{uuid}.payload"


def data_file(uuid: str) -> str:
    """Return the path of a data file."""
    return f"{DATA}{uuid}.data"
