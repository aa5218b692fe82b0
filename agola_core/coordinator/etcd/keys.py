"""Maps the coordinator's keys to keys of etcd: UTF-8 under a prefix that separates the stores of a cluster."""

from __future__ import annotations

from typing import Any

from agola_core.coordinator.port import KeyValue
from agola_core.errors import BadRequestError

_FIRST = b"\0"
_AFTER_TEXT = b"\xff"
"""Sorts after the text of every key, and is not valid text itself."""


class Keyspace:
    """The keys under a prefix.

    Args:
        prefix: Prefix of every key in etcd.
    """

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix

    def encode(self, key: str) -> bytes:
        """Return a key's name in etcd."""
        try:
            return self._prefix + key.encode()
        except UnicodeEncodeError as error:
            raise BadRequestError(f"key {key!r} has no UTF-8 form") from error

    def decode(self, key: bytes) -> str:
        """Return the coordinator's name of a key in etcd."""
        return key[len(self._prefix) :].decode("utf-8", "surrogateescape")

    def range(self, prefix: str, start_after: str = "") -> tuple[bytes, bytes]:
        """Return the start and the end of etcd's range of the keys with a prefix that sort after another key."""
        first = self.encode(prefix)
        end = first + _AFTER_TEXT
        if start_after:
            first = max(first, self.encode(start_after) + b"\0")
        return first or _FIRST, end

    def item(self, found: Any) -> KeyValue:
        """Convert a key that etcd has sent."""
        return KeyValue(
            self.decode(found.key), found.value, found.create_revision, found.mod_revision, found.version, found.lease
        )
