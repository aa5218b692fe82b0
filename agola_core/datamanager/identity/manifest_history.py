"""The manifests in a store's storage, and the decision which of them retention keeps.

Their numbers rise over all lineages, so the state before an import or a recovery is kept and read like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Items
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from agola_core.datamanager.format import layout
from agola_core.datamanager.format.lineages import StoredLineage
from agola_core.datamanager.sstable.manifest import Manifest, read_manifest
from agola_core.errors import CorruptionError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.sequence import Sequence

_BEFORE_ALL = Sequence(0, 0)


class StoredManifest(NamedTuple):
    """A manifest found in storage.

    Attributes:
        number: Its number; a crash may leave two with one number, each a true state of its lineage.
        epoch: Its lineage's epoch.
        path: Its path.
        root: Its lineage's prefix.
        modified: When it was written, by the storage's clock.
    """

    number: int
    epoch: int
    path: str
    root: str
    modified: datetime | None


def stored_manifests(storage: ObjectStorage, lineages: Items[StoredLineage]) -> list[StoredManifest]:
    """Return the manifests of some lineages, oldest first."""
    found = []
    for lineage in lineages:
        for info in storage.list(layout.manifests(lineage.root)):
            number = layout.parse_manifest(info.path)
            if number is not None:
                found.append(StoredManifest(number, lineage.epoch, info.path, lineage.root, info.modified))
    return sorted(found, key=lambda manifest: manifest[:3])


def newest_first(
    storage: ObjectStorage, manifests: Items[StoredManifest]
) -> Iterator[tuple[StoredManifest, Manifest | CorruptionError]]:
    """Yield manifests with their content, or the error of reading them, the newest state first.

    Of two with one number, the one that reaches further is the newer: a paused checkpointer that lost its lock left
    the other, and the WALs after it may be gone.

    Args:
        storage: The store's object storage.
        manifests: Oldest first, as `stored_manifests` returns them.
    """

    def read(stored: StoredManifest) -> Manifest | CorruptionError:
        try:
            return read_manifest(storage, stored.path)
        except CorruptionError as error:
            return error

    for _, group in groupby(reversed(manifests), key=lambda stored: (stored.number, stored.epoch)):
        found = [(stored, read(stored)) for stored in group]
        found.sort(key=lambda item: item[1].sequence if isinstance(item[1], Manifest) else _BEFORE_ALL, reverse=True)
        yield from found


def retained(
    manifests: Items[StoredManifest], current: int, *, keep: int, since: datetime, oldest_read: int
) -> list[StoredManifest]:
    """Decide which manifests must stay readable (a pure function).

    Args:
        manifests: The manifests in storage, oldest first.
        current: The number of the current one; later ones are being made, or a crash left them.
        keep: How many of the newest to keep.
        since: Keep those written since then, and the one before them, which was the state at that time.
        oldest_read: The number of the oldest one that an open instance reads; keep it and later ones.
    """
    published = [manifest for manifest in manifests if manifest.number <= current]
    newest = set(published[-max(keep, 1) :])
    young = [
        index
        for index, manifest in enumerate(published)
        if manifest.modified is not None and manifest.modified >= since
    ]
    recent = set(published[max(min(young) - 1, 0) :]) if young else set()
    return [
        manifest
        for manifest in manifests
        if manifest in newest or manifest in recent or manifest.number >= min(oldest_read, current)
    ]
