"""Change groups of the run service: names that refuse an action if another writer has acted on them since.

A token is Agola's: base64 of the revision at which it was made and of each group's revision, 0 for one that does not
exist. A token expires only when a group is deleted after it was made, however long ago that is.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

import msgspec

from agola_core.coordinator.port import Compare, Coordinator, DeleteOp, GetOp, Op, PutOp, iterate
from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import BadRequestError, ConflictError, TokenExpiredError
from agola_core.runservice.state import run_keys
from agola_core.runtime import faultpoints

faultpoints.declare("changegroups.before-forget")

MAX_NAME_BYTES = 256
_PART = 50


class GroupsToken(msgspec.Struct, frozen=True):
    """The revisions of some groups.

    Attributes:
        revision: The coordinator's revision at which they were read.
        groups: By group the revision of its last change; 0 for one that does not exist.
    """

    revision: int = msgspec.field(name="cur_revision", default=0)
    groups: dict[str, int] | None = msgspec.field(name="change_groups_revisions", default=None)

    def encode(self) -> str:
        """Return the token as text."""
        return base64.b64encode(_encoder.encode(self)).decode()

    @classmethod
    def decode(cls, text: str) -> GroupsToken:
        """Decode a token; "" guards nothing.

        Raises:
            BadRequestError: The text is no token, or has an invalid group name.
        """
        if not text:
            return cls()
        try:
            token = _decoder.decode(base64.b64decode(text, validate=True))
        except (ValueError, *DECODE_ERRORS) as error:
            raise BadRequestError("not a change groups token") from error
        check_names(token.groups or {})
        return token


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(GroupsToken)


def check_names(names: Iterable[str]) -> None:
    """Raise `BadRequestError` for an invalid group name."""
    for name in names:
        if not name or "/" in name or len(name.encode(errors="replace")) > MAX_NAME_BYTES:
            raise BadRequestError(f"change group {name[:80]!r}: a name has 1 to {MAX_NAME_BYTES} bytes and no '/'")


class ChangeGroups:
    """The groups in the coordinator."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def token(self, names: Iterable[str]) -> str:
        """Return a token of some groups; everything read afterwards is at least as new."""
        wanted = sorted(set(names))
        check_names(wanted)
        groups: dict[str, int] = {}
        revision = 0
        for start in range(0, len(wanted), _PART):
            part = wanted[start : start + _PART]
            result = self._coordinator.txn([], [GetOp(run_keys.GROUPS.key(name)) for name in part])
            revision = revision or result.revision
            found = (item.mod_revision if item else 0 for item in result.reads)
            groups.update(zip(part, found, strict=True))
        if not wanted:
            revision = self._coordinator.list(run_keys.GROUPS_FLOOR, limit=1).revision
        return GroupsToken(revision, groups).encode()

    def guards(self, text: str) -> tuple[list[Compare], list[Op]]:
        """Return the conditions and operations that make a transaction respect a token.

        Raises:
            BadRequestError: The text is no token.
            TokenExpiredError: A group was deleted since the token was made.
        """
        token = GroupsToken.decode(text)
        if not token.groups:
            return [], []
        floor = self._coordinator.get(run_keys.GROUPS_FLOOR)
        if floor is not None and token.revision < int(floor.value):
            raise TokenExpiredError("the change groups token is older than what is known of change groups: read again")
        compare = [Compare(run_keys.GROUPS_FLOOR, floor.mod_revision if floor else 0)]
        compare += [Compare(run_keys.GROUPS.key(name), seen) for name, seen in token.groups.items()]
        return compare, [PutOp(run_keys.GROUPS.key(name), b"") for name in token.groups]

    def check(self, text: str) -> None:
        """Raise `ConflictError` if a group of a token has changed."""
        groups = GroupsToken.decode(text).groups or {}
        now = GroupsToken.decode(self.token(groups)).groups or {}
        for name, seen in groups.items():
            if now[name] != seen:
                raise ConflictError(f"change group {name!r} was changed by another writer: read again")

    def forget(self, keep: int) -> int:
        """Delete all but the `keep` groups changed last; older tokens are refused. Return how many."""
        items = sorted(iterate(self._coordinator, run_keys.GROUPS), key=lambda item: item.mod_revision)
        going = items[: max(0, len(items) - keep)]
        for start in range(0, len(going), _PART):
            part = going[start : start + _PART]
            floor = PutOp(run_keys.GROUPS_FLOOR, str(part[-1].mod_revision + 1).encode())
            faultpoints.reach("changegroups.before-forget")
            unchanged = [Compare(item.key, item.mod_revision) for item in part]
            self._coordinator.txn(unchanged, [floor, *(DeleteOp(item.key) for item in part)])
        return len(going)
