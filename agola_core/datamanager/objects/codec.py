"""Codecs: how a mapping turns an object's bytes into a value, and back."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec

from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import BadRequestError

T = TypeVar("T")


class Codec(Protocol[T]):
    """Turns values into bytes and back; both raise `ValueError` or `TypeError` for what they cannot turn."""

    def encode(self, value: T, /) -> bytes:
        """Return a value's bytes."""

    def decode(self, data: bytes, /) -> T:
        """Return the value of some bytes."""


class BytesCodec:
    """Values are the bytes themselves."""

    def encode(self, value: bytes, /) -> bytes:
        """Return the bytes; `write_wal` refuses everything else."""
        return value

    def decode(self, data: bytes, /) -> bytes:
        """Return the bytes."""
        return data


class JsonCodec(Generic[T]):
    """Values of one type as JSON, with sorted keys of dictionaries, so that equal values have equal bytes.

    Args:
        kind: Any type that msgspec knows: a `msgspec.Struct`, a dataclass, `dict[str, int]`; `Any` for all of JSON.

    Raises:
        BadRequestError: msgspec does not know the type.
    """

    def __init__(self, kind: type[T]) -> None:
        try:
            self._decoder = msgspec.json.Decoder(kind)
        except (TypeError, NotImplementedError) as error:
            raise BadRequestError(f"no codec for {kind!r}: {error}") from error
        self._encoder = msgspec.json.Encoder(order="deterministic")

    def encode(self, value: T, /) -> bytes:
        """Return a value as JSON."""
        return self._encoder.encode(value)

    def decode(self, data: bytes, /) -> T:
        """Return the value of a JSON text, checked to be of the type."""
        return self._decoder.decode(data)


def as_codec(given: type[T] | Codec[T]) -> Codec[T]:
    """Return the codec that a type stands for: `bytes` for bytes, any other for its JSON; or the codec itself.

    Raises:
        BadRequestError: It is neither.
    """
    if given is bytes:
        return cast("Codec[T]", BytesCodec())
    if not isinstance(given, type) and hasattr(given, "encode") and hasattr(given, "decode"):
        return given
    return JsonCodec(cast("type[T]", given))


def decoded(codec: Codec[T], data: bytes, data_type: str, object_id: str) -> T:
    """Return an object's value.

    Raises:
        BadRequestError: Its bytes are not those of such a value.
    """
    try:
        return codec.decode(data)
    except (*DECODE_ERRORS, ValueError, TypeError) as error:
        raise BadRequestError(f"{data_type} {object_id!r} cannot be decoded: {error}") from error


def encoded(codec: Codec[Any], value: Any, data_type: str, object_id: str) -> bytes:
    """Return a value's bytes, which are decoded on trial: one that cannot be read would stop every iteration.

    Raises:
        BadRequestError: The codec cannot encode it, or would not decode it again: it is of another type.
    """
    try:
        data = codec.encode(value)
        codec.decode(data)
    except (*DECODE_ERRORS, ValueError, TypeError) as error:
        raise BadRequestError(f"{data_type} {object_id!r} cannot be encoded: {error}") from error
    return data
