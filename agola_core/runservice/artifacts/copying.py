"""Copies logs and workspace archives from another object storage with the same paths, such as Agola's.

Copying may be cut off and begun again: what is there in its whole size is not copied once more. Both kinds of objects
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
from agola_core.runtime.parallel import parallel_map
from agola_core.runtime.progress import Meter, Progress, ignore

faultpoints.declare("copy.before-object")

_WORKERS = 8
_EXAMPLES = 5


class Comparison(msgspec.Struct, frozen=True):
    """What two storages have of logs and archives.

    Attributes:
        objects: How many the source has.
        size: Their bytes.
        missing: How many of them the target lacks, or has in another size.
        missing_size: Their bytes.
        examples: Some of those paths.
    """

    objects: int = 0
    size: int = 0
    missing: int = 0
    missing_size: int = 0
    examples: tuple[str, ...] = ()


def compare(source: ObjectStorage, target: ObjectStorage) -> Comparison:
    """Return how the logs and archives of a source stand in a target, by path and size."""
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
    """Copy what a target lacks of a source's logs and archives; return how many objects were copied.

    Args:
        source: Only read.
        target: Written to.
        progress: Told of objects and bytes.
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
    """Yield the source's objects, each with whether the target has one of that path and size."""
    for prefix in KINDS:
        theirs = (info for info in source.list(prefix) if is_portable(info.path))
        ours = chain(target.list(prefix), [None])
        other = next(ours)
        for info in theirs:  # both come in the byte order of their paths
            while other is not None and other.path.encode() < info.path.encode():
                other = next(ours)
            yield info, other is not None and (other.path, other.size) == (info.path, info.size)
