"""Copies logs and workspace archives from another object storage with the same paths, such as Agola's.

Copying can be interrupted and repeated: objects that the target has in the same size are skipped. Both kinds of objects
never change once their tasks have ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import msgspec

from agola_core.errors import NotFoundError
from agola_core.objectstorage.port import ObjectInfo, ObjectStorage, is_portable
from agola_core.runservice.artifacts.references import KINDS
from agola_core.runtime import faultpoints
from agola_core.runtime.progress import Meter, Progress, ignore
from agola_core.runtime.threads.parallel import parallel_map

faultpoints.declare("copy.before-object")

_WORKERS = 8
_EXAMPLES = 5


class Comparison(msgspec.Struct, frozen=True):
    """The logs and archives of two storages, compared.

    Attributes:
        objects: How many objects the source has.
        size: Their bytes.
        missing: How many of them the target lacks, or has in another size.
        missing_size: Their bytes.
        examples: Some of the missing paths.
    """

    objects: int = 0
    size: int = 0
    missing: int = 0
    missing_size: int = 0
    examples: tuple[str, ...] = ()


def compare(source: ObjectStorage, target: ObjectStorage) -> Comparison:
    """Compare the logs and archives of two storages, by path and size."""
    found = Comparison()
    for info, is_there in _pairs(source, target):
        found = Comparison(
            found.objects + 1,
            found.size + info.size,
            found.missing + (not is_there),
            found.missing_size + (0 if is_there else info.size),
            found.examples if is_there or len(found.examples) == _EXAMPLES else (*found.examples, info.path),
        )
    return found


def copy(source: ObjectStorage, target: ObjectStorage, progress: Progress = ignore) -> int:
    """Copy the logs and archives that a target lacks; return how many objects were copied.

    Args:
        source: Only read.
        target: Written to.
        progress: Gets the number of objects and bytes.
    """

    def work(info: ObjectInfo) -> int:
        faultpoints.reach("copy.before-object")
        try:
            target.write(info.path, source.open_stream(info.path))
        except NotFoundError:  # its run was deleted meanwhile
            return 0
        return info.size

    meter, copied = Meter("copy", progress), 0
    lacking = (info for info, is_there in _pairs(source, target) if not is_there)
    for size in parallel_map(work, lacking, workers=_WORKERS):
        copied += 1
        meter.add(1, size)
    meter.end()
    return copied


def _pairs(source: ObjectStorage, target: ObjectStorage) -> Iterator[tuple[ObjectInfo, bool]]:
    """Yield each object of the source, and whether the target has one of that path and size."""
    for prefix in KINDS:
        theirs = (info for info in source.list(prefix) if is_portable(info.path))
        ours = chain(target.list(prefix), [None])
        other = next(ours)
        for info in theirs:  # both come in the byte order of their paths
            while other is not None and other.path.encode() < info.path.encode():
                other = next(ours)
            yield info, other is not None and (other.path, other.size) == (info.path, info.size)
