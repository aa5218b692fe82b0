"""The datamanager's vocabulary: actions, events, tokens and options.

Agola 0.2 names: an *action* puts or deletes one object of a data type; the actions of one `write_wal` are one
*WAL*; a *change group* is a name: a write is refused if a group has changed since its writer looked.
"""

from __future__ import annotations

import base64
import enum
import math
from datetime import datetime

import msgspec

from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import AgolaError, BadRequestError
from agola_core.runtime.clock import MOST_SECONDS
from agola_core.sequence import Sequence

MAX_ID_BYTES = 1024
"""The longest object id, in bytes of UTF-8."""

MAX_GROUP_CHARACTERS = 256
"""The longest change group name, in characters: Agola's rule."""


class Put(msgspec.Struct, frozen=True, tag="put", array_like=True, gc=False, repr_omit_defaults=True):
    """Store an object, new or over an old one.

    Its conditions are judged when the WAL is committed, against the state before the WAL; they are not stored.

    Attributes:
        data_type: One of the data types that the store was opened with.
        id: 1 to 1024 bytes of UTF-8.
        data: The object; may be empty.
        expected: An `Entry.version`: the WAL is refused if anybody has changed the object since it was read.
        if_absent: The WAL is refused if there is such an object.
    """

    data_type: str
    id: str
    data: bytes
    expected: str | None = None
    if_absent: bool = False


class Delete(msgspec.Struct, frozen=True, tag="delete", array_like=True, gc=False, repr_omit_defaults=True):
    """Delete an object; deleting a missing one is allowed and does nothing.

    Attributes:
        data_type: One of the data types that the store was opened with.
        id: 1 to 1024 bytes of UTF-8.
        expected: An `Entry.version`: the WAL is refused if anybody has changed the object since it was read.
    """

    data_type: str
    id: str
    expected: str | None = None


Action = Put | Delete


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An object as a reader saw it.

    Attributes:
        data: The object.
        version: What was seen, for `Put(..., expected=...)`: opaque text, which another process may use, too.
    """

    data: bytes
    version: str


class Durability(enum.StrEnum):
    """What `write_wal` waits for."""

    COORDINATOR = "coordinator"
    """Until the coordinator has committed: no crash of processes loses it (the default)."""
    STORAGE = "storage"
    """Until the WAL is in object storage, too: nor does the loss of the coordinator."""


def as_durability(given: Durability | str) -> Durability:
    """Return a durability, which may be given as text.

    Raises:
        BadRequestError: There is no such durability.
    """
    try:
        return Durability(given)
    except ValueError as error:
        raise BadRequestError(f"durability {given!r}: expected 'coordinator' or 'storage'") from error


class WalStatus(enum.StrEnum):
    """How far a WAL has come. The names are Agola's."""

    COMMITTED = "committed"
    COMMITTED_STORAGE = "committed_storage"
    CHECKPOINTED = "checkpointed"


class Event(msgspec.Struct, frozen=True):
    """One WAL as the feed reports it.

    Attributes:
        sequence: Its position in the total order of the store.
        previous: The sequence of the WAL before it.
        wal_id: The id that its writer gave, or a generated one.
        time: When its leader committed it, by that process's clock; for information, it orders nothing.
        actions: In the order they were given.
    """

    sequence: Sequence
    previous: Sequence
    wal_id: str
    time: datetime
    actions: tuple[Action, ...]


class ChangeGroupsToken(msgspec.Struct, frozen=True):
    """What a reader saw of some change groups: `write_wal` refuses a write whose token is no longer current.

    Attributes:
        revision: The log's revision that was seen. A token older than the retained history is refused.
        groups: For each group the revision of its last change; 0 for one that does not exist.
        lineage: The lineage that it belongs to; a token of another lineage is refused.
        sequence: The newest WAL that was seen, as text; `wait_for` waits for it.
    """

    revision: int = msgspec.field(name="cur_revision", default=0)
    groups: dict[str, int] = msgspec.field(name="change_groups_revisions", default_factory=dict)
    lineage: str = ""
    sequence: str = ""

    def encode(self) -> str:
        """Return the token as text: Agola's base64 of JSON, with our two fields more."""
        return base64.b64encode(_TOKEN_ENCODER.encode(self)).decode()

    @classmethod
    def decode(cls, text: str) -> ChangeGroupsToken:
        """Return the token of a text; "" is the token without change groups.

        Raises:
            BadRequestError: The text is no token.
        """
        if not text:
            return cls()
        try:
            return _TOKEN_DECODER.decode(base64.b64decode(text, validate=True))
        except (ValueError, *DECODE_ERRORS) as error:
            raise BadRequestError("not a change groups token") from error


class NewWal(msgspec.Struct, frozen=True):
    """A WAL for `DataManager.write_wals`, where its actions alone do not say everything.

    Attributes:
        actions: As for `write_wal`.
        token: As for `write_wal`.
        wal_id: As for `write_wal`.
    """

    actions: tuple[Action, ...]
    token: ChangeGroupsToken | None = None
    wal_id: str = ""


Verdict = ChangeGroupsToken | AgolaError
"""What became of one of several WALs: the token at its revision, or the error that refused it."""

_TOKEN_ENCODER = msgspec.json.Encoder(order="deterministic")
_TOKEN_DECODER = msgspec.json.Decoder(ChangeGroupsToken)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a datamanager behaves; the defaults suit one machine.

    Attributes:
        durability: What `write_wal` waits for.
        inline_limit: Payloads up to this many bytes ride in the coordinator; larger ones go to storage first.
        max_wal_bytes: The largest WAL, all its ids and data together.
        max_wal_actions: The most actions in one WAL.
        sync_interval: The most seconds before committed WALs go to storage.
        sync_bytes: Bytes of unsynced WALs at which they go to storage at once.
        checkpoint_wals: How many uncheckpointed WALs start a checkpoint (Agola: 100).
        checkpoint_bytes: Bytes of uncheckpointed actions that start one.
        checkpoint_interval: Seconds after which any uncheckpointed WAL starts one.
        block_size: Bytes of entries in a data file's block before compression.
        file_size: Bytes at which a data file ends and the next one begins.
        retain_wals: Checkpointed WALs kept in the coordinator (Agola: 100).
        retain_wal_ids: Given WAL ids remembered for retries.
        retain_manifests: Newest checkpoints kept for point-in-time reads (`open(at=...)`).
        retain_seconds: Also keep checkpoints younger than this; never less than the grace period.
        retain_groups: Change groups kept; beyond, the longest untouched are forgotten and older tokens refused.
        grace_period: Seconds an unreferenced object is kept before collection; 0 is for tests without other writers.
        lock_ttl: Seconds after which the locks of a crashed process are free.
        background: Whether background loops run the maintenance tasks.
        instance: This process's name in locks and status; "" generates one.

    Raises:
        BadRequestError: A value is of another type, or out of its range; names the option.
    """

    durability: Durability = Durability.COORDINATOR
    inline_limit: int = 64 * 1024
    max_wal_bytes: int = 512 * 1024 * 1024
    max_wal_actions: int = 1_000_000
    sync_interval: float = 1.0
    sync_bytes: int = 4 * 1024 * 1024
    checkpoint_wals: int = 5000
    checkpoint_bytes: int = 32 * 1024 * 1024
    checkpoint_interval: float = 60.0
    block_size: int = 16 * 1024
    file_size: int = 32 * 1024 * 1024
    retain_wals: int = 100
    retain_wal_ids: int = 10_000
    retain_manifests: int = 5
    retain_seconds: float = 0.0
    retain_groups: int = 10_000
    grace_period: float = 3600.0
    lock_ttl: float = 10.0
    background: bool = True
    instance: str = ""

    def __post_init__(self) -> None:
        """Accept a durability given as text, and refuse what an option cannot be."""
        msgspec.structs.force_setattr(self, "durability", as_durability(self.durability))
        for name, default in _OPTION_DEFAULTS:
            value = getattr(self, name)
            if value is not default:
                _check_option(name, default, value)


_OPTION_DEFAULTS = [
    (field.name, field.default) for field in msgspec.structs.fields(Options) if field.name != "durability"
]
_POSITIVE = frozenset(
    {
        "max_wal_bytes",
        "max_wal_actions",
        "sync_bytes",
        "checkpoint_wals",
        "checkpoint_bytes",
        "block_size",
        "file_size",
        "retain_manifests",
    }
)


def _check_option(name: str, default: object, value: object) -> None:
    if isinstance(default, (bool, str)):
        if not isinstance(value, type(default)):
            kind = "True or False" if isinstance(default, bool) else "a text"
            raise BadRequestError(f"option {name}: expected {kind}, not {value!r}"[:300])
        return
    kinds, noun = (int, "a whole number") if isinstance(default, int) else ((int, float), "a number")
    if not isinstance(value, kinds) or isinstance(value, bool) or math.isnan(value):
        raise BadRequestError(f"option {name}: expected {noun}, not {value!r}"[:300])
    least = 1 if name in _POSITIVE else 0
    if value < least or (name == "lock_ttl" and not value):
        bound = "more than 0" if name == "lock_ttl" else f"at least {least}"
        raise BadRequestError(f"option {name}: expected {bound}, not {value!r}")
    if isinstance(default, float) and value > MOST_SECONDS:
        raise BadRequestError(f"option {name}: expected at most {MOST_SECONDS:.0f}, a hundred years, not {value!r}")


def as_options(options: Options | None) -> Options:
    """Return the options that a caller gave, the defaults for None.

    Raises:
        BadRequestError: They are no `Options`.
    """
    if options is None:
        return Options()
    if not isinstance(options, Options):
        raise BadRequestError(f"options are an agola_core.Options(...), not a {type(options).__name__}")
    return options
