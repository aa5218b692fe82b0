"""The revisions of change groups, as far as this process knows them: a cache that commits keep up to date."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 100_000


class GroupRevisions:
    """Remembers the revision of each change group's last change. Changed only under the log's lock; read without it."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def get(self, group: str) -> int | None:
        """Return a group's revision, 0 for a group that does not exist; None when it is not known."""
        return self._known.get(group)

    def learn(self, group: str, revision: int) -> None:
        """Record a group's revision in the coordinator, as of the log's head or later."""
        self._known[group] = revision

    def moved(self, groups: Iterable[str], revision: int) -> None:
        """Record that a commit changed some groups; forget all groups once they are too many."""
        known = self._known
        for group in groups:
            known[group] = revision
        if len(known) > _MOST:
            known.clear()

    def forget(self) -> None:
        """Forget everything: the log was not followed from commit to commit."""
        self._known.clear()
