"""The steps that are not commands: workspaces, caches and sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from agola_core.errors import BadRequestError, NotFoundError
from agola_core.executor.archive import make_archive
from agola_core.executor.templates import expand_key
from agola_core.executor.unpack import unpack
from agola_core.runservice.protocol import RunserviceClient
from agola_core.runservice.types import (
    ExecutorTask,
    RestoreCacheStep,
    RestoreWorkspaceStep,
    SaveCacheStep,
    SaveToWorkspaceStep,
)

_CHUNK = 1 << 20


class StepContext(msgspec.Struct, frozen=True):
    """What a step works with.

    Attributes:
        task: The task.
        service: The run service.
        working_dir: The task's working directory, as the executor sees it.
        archive: Where the step's archive goes.
        arch: The driver's architecture.
        log: Writes a line to the step's log.
    """

    task: ExecutorTask
    service: RunserviceClient
    working_dir: Path
    archive: Path
    arch: str
    log: Callable[[str], None]


def restore_source(context: StepContext, source_id: str) -> None:
    """Unpack the run's source archive into the working directory."""
    count = unpack(context.service.open_source(source_id), context.working_dir, overwrite=True)
    context.log(f"unpacked the source tree: {count} entries")


def save_to_workspace(context: StepContext, step: SaveToWorkspaceStep) -> None:
    """Save files for the tasks that depend on this one."""
    count = make_archive(context.archive, step.contents, context.working_dir)
    context.log(f"saved {count} entries to the workspace")


def restore_workspace(context: StepContext, step: RestoreWorkspaceStep) -> None:
    """Unpack what all ancestors saved, in their order."""
    target = context.working_dir / (step.dest_dir or ".")
    for operation in context.task.workspace_operations:
        pieces = context.service.open_workspace_archive(operation.task_id, operation.step)
        count = unpack(pieces, target, overwrite=operation.overwrite)
        context.log(f"restored {count} entries of task {operation.task_id}")


def save_cache(context: StepContext, step: SaveCacheStep) -> None:
    """Save files under the step's key, unless it exists."""
    key = _key(context, step.key)
    context.log(f"cache key: {step.key} -> {key}")
    full = f"{context.task.cache_prefix}-{key}"
    if context.service.cache_exists(full):
        context.log("the cache exists already")
        return
    count = make_archive(context.archive, step.contents, context.working_dir, default_paths=True)
    stored = context.service.put_cache(full, _pieces(context.archive), context.archive.stat().st_size)
    context.archive.unlink()
    context.log(f"saved {count} entries" if stored else "the cache exists already")


def restore_cache(context: StepContext, step: RestoreCacheStep) -> None:
    """Unpack the first cache that one of the keys begins; none is no error."""
    target = context.working_dir / (step.dest_dir or ".")
    for template in step.keys:
        key = _key(context, template)
        context.log(f"cache key: {template} -> {key}")
        try:
            pieces = context.service.open_cache(f"{context.task.cache_prefix}-{key}", prefix=True)
        except NotFoundError:
            continue
        count = unpack(pieces, target, overwrite=True)
        context.log(f"restored {count} entries")
        return
    context.log("no cache found")


def _key(context: StepContext, template: str) -> str:
    if not template:
        raise BadRequestError("the cache key is empty")
    return expand_key(
        template, working_dir=context.working_dir, environment=context.task.environment, arch=context.arch
    )


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            yield piece
