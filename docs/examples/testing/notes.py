"""Notes that several writers edit."""

from __future__ import annotations

from agola_core import ConflictError, DataManager, NotFoundError, Put


class Notes:
    """Notes in a store with the data type `note`."""

    def __init__(self, store: DataManager) -> None:
        self._store = store

    def append(self, name: str, line: str) -> str:
        """Add a line to a note, again when somebody else was first, and return the whole note."""
        while True:
            try:
                data, token = self._store.read_object("note", name, change_groups=[name])
            except NotFoundError:
                data, token = b"", self._store.change_groups_token([name])
            text = data.decode() + line + "\n"
            try:
                self._store.write_wal([Put("note", name, text.encode())], token)
            except ConflictError:
                continue
            return text
