"""Encodes archived records byte for byte as Agola 0.2 stores them, for exports to it.

Our records are Agola's with a few additional fields, which are left out; the rest is encoded as Go does it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from agola_core.datamanager import as_go
from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import BadRequestError
from agola_core.runservice.archive.projection import RUN, RUN_CONFIG, RUN_COUNTER
from agola_core.runservice.model.types import (
    ArchiveContents,
    Container,
    Depend,
    RegistryAuth,
    RestoreCacheStep,
    RestoreWorkspaceStep,
    Run,
    RunConfig,
    RunConfigTask,
    RunStep,
    RunTask,
    RunTaskStep,
    Runtime,
    SaveCacheStep,
    SaveToWorkspaceStep,
)

_FIELDS: dict[type[msgspec.Struct], str] = {
    Run: "id name counter group annotations phase result stop tasks enqueue_time start_time end_time archived",
    RunTask: "id status annotations skip waiting_approval approved setup_step steps workspace_archives "
    "workspace_archives_phase start_time end_time",
    RunTaskStep: "phase log_phase start_time end_time",
    RunConfig: "id name group setup_errors annotations static_environment environment tasks cache_group",
    RunConfigTask: "level id name depends runtime environment working_dir shell user steps ignore_failure "
    "needs_approval skip docker_registries_auth",
    Depend: "task_id conditions",
    RegistryAuth: "type username password auth",
    Runtime: "type arch containers",
    Container: "image environment user privileged entrypoint",
    RunStep: "type name command environment working_dir shell user",
    SaveToWorkspaceStep: "type name contents",
    RestoreWorkspaceStep: "type name dest_dir",
    SaveCacheStep: "type name key contents",
    RestoreCacheStep: "type name keys dest_dir",
    ArchiveContents: "source_dir dest_dir paths",
}
"""Agola's fields, in the order of its structures."""

_FRACTION = re.compile(rb"\.[0-9]{1,9}(?=Z|[+-][0-9]{2}:[0-9]{2}\")")
_NANOSECONDS = re.compile(rb"\.[0-9]{7,9}(?=Z|[+-][0-9]{2}:[0-9]{2}\")")

_ORDER = {record: tuple(fields.split()) for record, fields in _FIELDS.items()}
_decode_run = msgspec.json.Decoder(Run).decode
_decode_config = msgspec.json.Decoder(RunConfig).decode
_decode_counter = msgspec.json.Decoder(int).decode
_encode = msgspec.json.Encoder().encode

_DECODERS: dict[str, Callable[[bytes], Any]] = {
    RUN: _decode_run,
    RUN_CONFIG: _decode_config,
    RUN_COUNTER: _decode_counter,
}


def check_object(data_type: str, object_id: str, data: bytes) -> Any:
    """Decode an object of the run service.

    Raises:
        BadRequestError: It is invalid, or its id is another.
    """
    try:
        record = _DECODERS[data_type](data)
    except DECODE_ERRORS as error:
        raise BadRequestError(f"not a {data_type}: {error}") from error
    if data_type in {RUN, RUN_CONFIG} and record.id != object_id:
        raise BadRequestError(f"the record is of {record.id[:80]!r}")
    return record


def agola_data(data_type: str, data: bytes) -> bytes:
    """Return a stored record as Agola would have stored it; one that Agola wrote keeps its nanoseconds."""
    written = as_go(_encode(_form(_DECODERS[data_type](data))))
    if _NANOSECONDS.search(data) and _FRACTION.sub(b"", data) == _FRACTION.sub(b"", written):
        return data  # our times have microseconds
    return written


def _form(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        sent = msgspec.to_builtins(value, builtin_types=(datetime,))
        return {
            name: _form(sent[name] if name == "type" and not hasattr(value, name) else getattr(value, name))
            for name in _ORDER[type(value)]
            if name in sent
        }
    if isinstance(value, dict):
        return {name: _form(value[name]) for name in sorted(value, key=str.encode)}
    if isinstance(value, list | tuple):
        return [_form(item) for item in value]
    if isinstance(value, datetime):
        return _time(value)
    return value


def _time(value: datetime) -> str:
    """Return a time as Go's RFC 3339 with nanoseconds, without trailing zeros."""
    offset = value.utcoffset()
    if offset is None or not offset:
        text, zone = value.astimezone(UTC).replace(tzinfo=None).isoformat(), "Z"
    else:
        text, zone = value.replace(tzinfo=None).isoformat(), value.isoformat()[-6:]
    return (text.rstrip("0") if "." in text else text) + zone
