"""Encodes active runs for the coordinator: small ones in one key, large ones in parts. Pure.

A run of many tasks is split, so that a change of one task writes a part and not the whole run. The run's own key is
written with every change, whatever changed, so its revision guards the run as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import msgspec
from msgspec.structs import replace

from agola_core.coordinator.port import DeleteOp, KeyValue, Op, PutOp
from agola_core.encoding.compression import ZstdError, compress, decompress
from agola_core.encoding.decoding import decoded
from agola_core.errors import CorruptionError
from agola_core.runservice.model.types import Run, RunTask
from agola_core.runservice.state import run_keys

_WHOLE_TASKS = 16
_PART_TASKS = 32
_MAX_PARTS = 64
_COMPRESS_BYTES = 16 * 1024
_MOST_BYTES = 256 * 1024 * 1024
_ZSTD = b"\x28\xb5\x2f\xfd"


class _Split(msgspec.Struct):
    parts: int = 0


_decode_run = msgspec.json.Decoder(Run).decode
_decode_split = msgspec.json.Decoder(_Split).decode
_decode_tasks = msgspec.json.Decoder(list[RunTask]).decode
_encode = msgspec.json.Encoder().encode


def part_sizes(count: int) -> list[int]:
    """Return how many tasks each part of a run of `count` tasks holds; none if the run is stored whole."""
    if count <= _WHOLE_TASKS:
        return []
    parts = min(_MAX_PARTS, -(-count // _PART_TASKS))
    size, more = divmod(count, parts)
    return [size + (number < more) for number in range(parts)]


def run_ops(run: Run, before: Run | None = None) -> list[Op]:
    """Return the operations that store a run: its own key, and the parts that have changed.

    Args:
        run: The run.
        before: The run as it is stored, with the same tasks in the same order; None for a new one.
    """
    sizes = part_sizes(len(run.tasks))
    if not sizes:
        return [PutOp(run_keys.RUNS.key(run.id), _pack(_encode(run)))]
    header = {**msgspec.to_builtins(replace(run, tasks={})), "parts": len(sizes)}
    ops: list[Op] = [PutOp(run_keys.RUNS.key(run.id), _encode(header))]
    new = iter(run.tasks.values())
    old = iter(before.tasks.values() if before else ())
    for number, size in enumerate(sizes):
        tasks, stored = list(islice(new, size)), list(islice(old, size))
        if tasks != stored:  # a list compares equal items by their identity first
            ops.append(PutOp(run_keys.run_part(run.id, number), _pack(_encode(tasks))))
    return ops


def delete_ops(run: Run) -> list[Op]:
    """Return the operations that delete an active run."""
    parts = range(len(part_sizes(len(run.tasks))))
    return [DeleteOp(run_keys.RUNS.key(run.id)), *(DeleteOp(run_keys.run_part(run.id, number)) for number in parts)]


def decode_header(item: KeyValue | PutOp) -> tuple[Run, int]:
    """Decode a run's own key: the run, without tasks if it has parts, and how many parts."""
    data = _unpack(item)
    run = decoded(_decode_run, data, item.key)
    return run, 0 if run.tasks else decoded(_decode_split, data, item.key).parts


def decode_part(item: KeyValue | PutOp) -> list[RunTask]:
    """Decode the tasks of a part."""
    return decoded(_decode_tasks, _unpack(item), item.key)


def with_parts(run: Run, parts: Iterable[list[RunTask]]) -> Run:
    """Return a run with the tasks of its parts, in their order."""
    return replace(run, tasks={task.id: task for part in parts for task in part})


def _pack(data: bytes) -> bytes:
    return compress(data, 1) if len(data) > _COMPRESS_BYTES else data


def _unpack(item: KeyValue | PutOp) -> bytes:
    if not item.value.startswith(_ZSTD):
        return item.value
    try:
        return decompress(item.value, _MOST_BYTES)
    except ZstdError as error:
        raise CorruptionError(f"a packed run is damaged: {error}", path=item.key) from error
