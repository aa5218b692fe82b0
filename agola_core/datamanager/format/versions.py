"""What a writer's conditions on objects say: the version that it read, or that there is no such object.

A version is the lineage and the newest WAL that its reader saw, and the digest of the object's bytes. The WAL tells
that nobody has changed the object since, as long as the log remembers its changes one by one; afterwards, and in
another lineage, the bytes tell whether the object is still what was read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence as Items
from typing import NamedTuple

from agola_core.datamanager.types import Action, Delete, Put
from agola_core.errors import BadRequestError
from agola_core.sequence import Sequence

_TEXT = re.compile(r"([0-9a-f]{1,64})\.([0-9a-v]{13}-[0-9a-v]{13})\.([0-9a-f]{8})\.([0-9a-f]{32})")


class Version(NamedTuple):
    """What a reader saw of an object.

    Attributes:
        lineage: The history that it read.
        seen: The newest WAL of the state that it read.
        name: The digest of the object's type and id: the version of one object says nothing about another.
        digest: The digest of the object's bytes.
    """

    lineage: str
    seen: Sequence
    name: str
    digest: str

    def __str__(self) -> str:
        """Return the text form."""
        return f"{self.lineage}.{self.seen}.{self.name}.{self.digest}"


class Condition(NamedTuple):
    """A condition on an object.

    Attributes:
        data_type: The object's type.
        id: Its id.
        version: What it must still be; None if it must not exist.
    """

    data_type: str
    id: str
    version: Version | None


def object_digest(data: bytes) -> str:
    """Return the digest of an object's bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def name_digest(data_type: str, object_id: str) -> str:
    """Return the digest of an object's type and id."""
    return hashlib.blake2b(f"{data_type}\0{object_id}".encode(), digest_size=4).hexdigest()


def split_conditions(actions: Items[Action]) -> tuple[tuple[Action, ...], tuple[Condition, ...]]:
    """Return a WAL's actions as they are stored, and the conditions that they had.

    Raises:
        BadRequestError: A condition is malformed, or is the version of another object.
    """
    plain: list[Action] = []
    conditions = []
    for index, action in enumerate(actions):
        if type(action) is Put:
            plain.append(Put(action.data_type, action.id, action.data))
            if action.if_absent:
                if action.if_absent is not True or action.expected is not None:
                    raise BadRequestError(f"action {index}: if_absent is True or False, and goes without expected")
                conditions.append(Condition(action.data_type, action.id, None))
        else:
            plain.append(Delete(action.data_type, action.id))
        if action.expected is not None:
            conditions.append(Condition(action.data_type, action.id, _version(action, index)))
    return tuple(plain), tuple(conditions)


def _version(action: Action, index: int) -> Version:
    text = action.expected
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise BadRequestError(f"action {index}: expected takes an Entry.version, not {text!r}"[:200])
    if match[3] != name_digest(action.data_type, action.id):
        raise BadRequestError(f"action {index}: expected is not a version of {action.data_type} {action.id!r}"[:200])
    return Version(match[1], Sequence.parse(match[2]), match[3], match[4])
