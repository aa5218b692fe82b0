"""The coordinator's keys as etcd has them: UTF-8 below a prefix that separates stores of one cluster."""

from __future__ import annotations

from typing import Any

from agola_core.coordinator.port import KeyValue
from agola_core.errors import BadRequestError

_FIRST = b"\0"
_AFTER_TEXT = b"\xff"
"""Sorts after every key's text, and is none."""


class Keyspace:
    """The keys below a prefix.

    Args:
        prefix: What every key begins with in etcd.
    """

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix

    def encode(self, key: str) -> bytes:
        """Return a key as etcd has it."""
        try:
            return self._prefix + key.encode()
        except UnicodeEncodeError as error:
            raise BadRequestError(f"key {key!r} has no UTF-8 form") from error

    def decode(self, key: bytes) -> str:
        """Return a key of etcd's as the coordinator names it."""
        return key[len(self._prefix) :].decode("utf-8", "surrogateescape")

    def range(self, prefix: str, start_after: str = "") -> tuple[bytes, bytes]:
        """Return etcd's first key and its end of the keys that begin with a prefix and sort after another."""
        first = self.encode(prefix)
        end = first + _AFTER_TEXT
        if start_after:
            first = max(first, self.encode(start_after) + b"\0")
        return first or _FIRST, end

    def item(self, found: Any) -> KeyValue:
        """Return a key that etcd has sent."""
        return KeyValue(
            self.decode(found.key), found.value, found.create_revision, found.mod_revision, found.version, found.lease
        )
