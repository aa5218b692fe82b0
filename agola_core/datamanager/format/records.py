"""The records that the datamanager stores in the coordinator, and the encoding of a WAL everywhere.

The control records are JSON, so that people can read them. A WAL is one frame, the same bytes in the coordinator and in
a batch on storage: a crc32 (4 bytes, little-endian) of what follows, then the `WalRecord` as a MessagePack array.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence as Items
from typing import Any, TypeVar

import msgspec

from agola_core.datamanager.format import layout
from agola_core.datamanager.types import Action, Put
from agola_core.encoding.decoding import DECODE_ERRORS, newer
from agola_core.errors import CorruptionError
from agola_core.sequence import Sequence

FORMAT = 1
"""The version of everything that the datamanager stores; a larger one is refused."""

EVENTS_FORMAT = 2
"""The version of WALs that hold events: releases that do not know how to index those must not take them in."""

_CRC = struct.Struct("<I")


class LineageRecord(msgspec.Struct, frozen=True):
    """The current lineage of a store. Rewriting it fences everybody who knows another one.

    Attributes:
        store: The store's id, which never changes.
        lineage: 16 hexadecimal digits, new at every creation, recovery and import.
        epoch: The epoch of this lineage's sequences; rises with every lineage.
        format: The version of the stored formats.
    """

    store: str
    lineage: str
    epoch: int
    format: int = FORMAT

    @property
    def start(self) -> Sequence:
        """The sequence before the lineage's first WAL."""
        return Sequence(self.epoch, 0)

    @property
    def root(self) -> str:
        """The lineage's prefix in object storage."""
        return layout.lineage_root(self.epoch, self.lineage)


class HeadRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The log's newest WAL. Every commit compares this key's revision and value, and rewrites it.

    The WAL's id distinguishes this history from another one of the same length and revisions, such as that of a
    coordinator that was restored from a backup and went on.
    """

    sequence: str
    lineage: str
    wal_id: str = ""


class CheckpointRecord(msgspec.Struct, frozen=True):
    """The current manifest. It is published here by a compare, never found by listing the storage."""

    number: int
    path: str
    sequence: str
    lineage: str


class SyncRecord(msgspec.Struct, frozen=True):
    """The newest WAL in object storage, which has every WAL up to it."""

    sequence: str
    lineage: str


class FloorRecord(msgspec.Struct, frozen=True):
    """The revision of the newest forgotten change group: tokens from before it are refused."""

    revision: int


class WalIdRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of a WAL with an idempotency key; its revision is that of the commit.

    Attributes:
        sequence: The WAL's.
        lineage: The lineage that committed it.
        digest: The digest of its encoded actions (see `digest_of`).
        groups: The change groups that it touched.
        heirs: Later lineages that it counts in, too, because recoveries inherited it.
    """

    sequence: str
    lineage: str
    digest: str
    groups: tuple[str, ...] = ()
    heirs: tuple[str, ...] = ()

    def counts_in(self, lineage: str) -> bool:
        """Return whether the WAL is part of a lineage's history."""
        return lineage == self.lineage or lineage in self.heirs


class InstanceRecord(msgspec.Struct, frozen=True):
    """A running instance and the oldest manifest that it still reads.

    Attributes:
        name: Unique among the store's instances.
        host: The machine.
        pid: The process there.
        started: When it opened the store; for information.
        manifest: The number of the manifest.
        start: When the process was started, in ticks since the machine's boot; 0 if not known.
    """

    name: str
    host: str
    pid: int
    started: str
    manifest: int = 0
    start: int = 0


class PayloadRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A reference to the stored actions of a large WAL."""

    path: str
    size: int
    digest: str


class WalRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A WAL as it is stored.

    Attributes:
        epoch: With `counter`, its sequence.
        counter: From 1 in each epoch.
        previous: The counter of the WAL before it in the epoch; 0 for the first.
        wal_id: Given by the writer, or generated.
        time: Microseconds since 1970, by its leader's clock.
        groups: The change groups that it touched.
        actions: The encoded actions; empty if they are in `payload`.
        payload: The reference to a large WAL's actions.
        format: The version of this record.
        given: Whether the writer gave the id, so that a retry may follow.
    """

    epoch: int
    counter: int
    previous: int
    wal_id: str
    time: int
    groups: tuple[str, ...]
    actions: bytes
    payload: PayloadRef | None = None
    format: int = FORMAT
    given: bool = True

    @property
    def sequence(self) -> Sequence:
        """The WAL's sequence."""
        return Sequence(self.epoch, self.counter)

    @property
    def previous_sequence(self) -> Sequence:
        """The sequence of the WAL before it."""
        return Sequence(self.epoch, self.previous)

    @property
    def placed(self) -> tuple[int, ...]:
        """The positions of its events (see `events.place`); empty if it has none."""
        return ()


class EventsWalRecord(WalRecord, frozen=True, array_like=True, gc=False):
    """A WAL with events as it is stored, in `EVENTS_FORMAT`.

    Attributes:
        places: The position of its first event, then the first version of each batch.
    """

    places: tuple[int, ...] = ()

    @property
    def placed(self) -> tuple[int, ...]:
        """The positions of its events."""
        return self.places


class Wal(msgspec.Struct, frozen=True, gc=False):
    """A WAL in memory: its record, its decoded actions, and its frame as it is stored."""

    record: WalRecord
    actions: Items[Action]
    frame: bytes

    @property
    def size(self) -> int:
        """About how many bytes its actions have, wherever they are stored."""
        payload = self.record.payload
        return len(self.frame) if payload is None else payload.size


ControlRecord = LineageRecord | HeadRecord | CheckpointRecord | SyncRecord | FloorRecord | WalIdRecord | InstanceRecord

T = TypeVar("T", bound=ControlRecord)

_json_encode = msgspec.json.Encoder().encode
_actions_encode = msgspec.msgpack.Encoder().encode
_actions_decode = msgspec.msgpack.Decoder(list[Action]).decode
_wal_encode = msgspec.msgpack.Encoder().encode
_wal_decode = msgspec.msgpack.Decoder(WalRecord).decode
_events_wal_decode = msgspec.msgpack.Decoder(EventsWalRecord).decode
_fields_decode = msgspec.msgpack.Decoder(list[Any]).decode
_FORMAT_FIELD = WalRecord.__struct_fields__.index("format")


def encode(record: ControlRecord) -> bytes:
    """Return a control record as JSON."""
    return _json_encode(record)


def decode(record: type[T], value: bytes, key: str) -> T:
    """Return the control record at a key.

    Raises:
        CorruptionError: The value is not such a record.
    """
    try:
        return msgspec.json.decode(value, type=record)
    except DECODE_ERRORS as error:
        raise CorruptionError(f"not a {record.__name__}: {error}", path=key) from error


def encode_actions(actions: Items[Action]) -> bytes:
    """Return the actions of a WAL as MessagePack, without their conditions."""
    return _actions_encode(
        [
            ("put", action.data_type, action.id, action.data)
            if type(action) is Put
            else ("delete", action.data_type, action.id)
            for action in actions
        ]
    )


def decode_actions(data: bytes, path: str) -> list[Action]:
    """Return the actions that were encoded.

    Args:
        data: The result of `encode_actions`.
        path: The path or key that it was read from, for the error.

    Raises:
        CorruptionError: It is not a list of actions.
    """
    try:
        return _actions_decode(data)
    except DECODE_ERRORS as error:
        raise CorruptionError(f"not a list of actions: {error}", path=path) from error


def digest_of(encoded: bytes) -> str:
    """Return the digest that tells a retry from another WAL with the same id; a payload has the same digest."""
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()


def encode_wal(record: WalRecord) -> bytes:
    """Return the frame of a WAL."""
    body = _wal_encode(record)
    return _CRC.pack(zlib.crc32(body)) + body


def decode_wal(frame: bytes | memoryview, path: str, offset: int = 0) -> WalRecord:
    """Return the WAL of a frame.

    Args:
        frame: The result of `encode_wal`.
        path: The path or key that it was read from, for the error.
        offset: The frame's offset there.

    Raises:
        CorruptionError: The checksum does not match, or it is not a frame.
        FormatError: A later release wrote it.
    """
    if len(frame) < _CRC.size or _CRC.unpack_from(frame)[0] != zlib.crc32(frame[_CRC.size :]):
        raise CorruptionError("the checksum of a WAL does not match", path=path, offset=offset)
    try:
        record = _wal_decode(frame[_CRC.size :])
        if record.format == EVENTS_FORMAT:
            record = _events_wal_decode(frame[_CRC.size :])
    except DECODE_ERRORS as error:
        found = _wal_format(frame[_CRC.size :])
        if found > EVENTS_FORMAT:
            raise newer(f"the WAL in {path}", found, EVENTS_FORMAT) from error
        raise CorruptionError(f"not a WAL: {error}", path=path, offset=offset) from error
    if record.format > EVENTS_FORMAT:
        raise newer(f"the WAL in {path}", record.format, EVENTS_FORMAT)
    return record


def _wal_format(body: bytes | memoryview) -> int:
    """Return the format of a WAL whose other fields this release does not know; 0 if there is none."""
    try:
        fields = _fields_decode(body)
    except DECODE_ERRORS:
        return 0
    found = fields[_FORMAT_FIELD] if len(fields) > _FORMAT_FIELD else 0
    return found if isinstance(found, int) else 0
