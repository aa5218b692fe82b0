"""Decodes JSON bodies as Go does, so that clients that rely on it are understood.

Unknown fields are ignored, keys match whatever their case, `null` stands for the zero value, an unknown type of step
becomes `null`, and only the first document of a body counts. `runservice.model.gojson` writes what this reads.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec
from msgspec import inspect

from agola_core.errors import BadRequestError

T = TypeVar("T")

Adapt = Callable[[Any], Any]

_ZEROS = {
    inspect.StrType: "",
    inspect.IntType: 0,
    inspect.FloatType: 0.0,
    inspect.BoolType: False,
    inspect.ListType: [],
    inspect.DictType: {},
    inspect.StructType: {},
}


def decode(data: bytes, kind: type[T]) -> T:
    """Decode a body as a record.

    Raises:
        BadRequestError: It is not a record of this type.
    """
    try:
        return msgspec.convert(_adapter(cast("Any", kind))(_first_document(data)), kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadRequestError(f"malformed body: {error}") from error


def _first_document(data: bytes) -> Any:
    if not data.strip():
        raise ValueError("EOF")
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        text = data.decode().lstrip(" \t\r\n")
        end = json.JSONDecoder().raw_decode(text)[1]
        if not text[end:].strip():
            raise
        return msgspec.json.decode(text[:end])


@functools.cache
def _adapter(kind: Any) -> Adapt:
    """Return the function that adapts a decoded document, so that msgspec can convert it to a type."""
    adapt = _of(inspect.type_info(kind))
    return lambda value: adapt({} if value is None else value)


def _of(info: inspect.Type) -> Adapt:
    if isinstance(info, inspect.StructType):
        return _struct(info.cls)
    if isinstance(info, inspect.ListType):
        return _list(_of(info.item_type), _zero(info.item_type))
    if isinstance(info, inspect.DictType):
        return _dict(_of(info.value_type), _zero(info.value_type))
    if isinstance(info, inspect.UnionType):
        kinds = [item for item in info.types if not isinstance(item, inspect.NoneType)]
        structs = [item for item in kinds if isinstance(item, inspect.StructType)]
        if len(structs) > 1:
            return _tagged(structs)
        return _of(kinds[0]) if len(kinds) == 1 else _same
    return _same


@functools.cache
def _struct(cls: type) -> Adapt:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    fields = {
        field.encode_name.lower(): (field.encode_name, _of(field.type), _takes_null(field.type))
        for field in info.fields
    }
    if info.tag_field is not None:
        fields[info.tag_field.lower()] = (info.tag_field, _same, False)

    def adapt(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        result = {}
        for key, item in value.items():
            known = fields.get(key.lower())
            if known is not None and (item is not None or known[2]):
                result[known[0]] = item if item is None else known[1](item)
        return result

    return adapt


def _tagged(structs: list[inspect.StructType]) -> Adapt:
    tag_field = structs[0].tag_field or "type"
    by_tag = {item.tag: _struct(item.cls) for item in structs}

    def adapt(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        tag = next((item for key, item in value.items() if key.lower() == tag_field.lower()), None)
        return by_tag[tag](value) if isinstance(tag, str) and tag in by_tag else None

    return adapt


def _list(item: Adapt, zero: Any) -> Adapt:
    def adapt(value: Any) -> Any:
        return [zero if entry is None else item(entry) for entry in value] if isinstance(value, list) else value

    return adapt


def _dict(item: Adapt, zero: Any) -> Adapt:
    def adapt(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: zero if entry is None else item(entry) for key, entry in value.items()}

    return adapt


def _takes_null(info: inspect.Type) -> bool:
    return isinstance(info, inspect.UnionType) and info.includes_none


def _zero(info: inspect.Type) -> Any:
    return None if _takes_null(info) else _ZEROS.get(type(info))


def _same(value: Any) -> Any:
    return value
