"""Built-in steps: save and restore workspaces and caches, and unpack sources."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from agola_core.errors import BadRequestError, NotFoundError, UnavailableError
from agola_core.executor.cache_keys import expand_key, stored_key
from agola_core.executor.drivers.port import Pod
from agola_core.runservice.model.protocol import RunserviceClient
from agola_core.runservice.model.types import (
    ArchiveContents,
    ExecutorTask,
    RestoreCacheStep,
    RestoreWorkspaceStep,
    RunStep,
    SaveCacheStep,
    SaveToWorkspaceStep,
    Step,
)

_CHUNK = 1 << 20
_EVERYTHING = ["**"]
_MAX_KEY_BYTES = 200
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0

T = TypeVar("T")


class StepContext(msgspec.Struct, frozen=True):
    """What a step needs.

    Attributes:
        task: The task.
        service: The run service.
        pod: The task's pod.
        working_dir: The task's working directory, as its commands see it.
        user: The user with whose permissions the step runs.
        environment: For `env` in a key.
        archive: The path of the step's archive.
        arch: The driver's architecture.
        log: Writes a line to the step's log.
        ended: Set when the task must end.
        patience: Seconds to wait for a service that cannot be reached.
    """

    task: ExecutorTask
    service: RunserviceClient
    pod: Pod
    working_dir: str
    user: str
    environment: Mapping[str, str]
    archive: Path
    arch: str
    log: Callable[[str], None]
    ended: threading.Event
    patience: float


def run_builtin(context: StepContext, step: Step | None) -> None:
    """Run a step that is not a command.

    Raises:
        AgolaError: It failed; the message says why.
    """
    match step:
        case RunStep():
            _restore_source(context, step.source)
        case SaveToWorkspaceStep():
            _save_to_workspace(context, step)
        case RestoreWorkspaceStep():
            _restore_workspace(context, step)
        case SaveCacheStep():
            _save_cache(context, step)
        case RestoreCacheStep():
            _restore_cache(context, step)
        case None:
            raise BadRequestError("the step is of a type that this executor does not know")


def _restore_source(context: StepContext, source_id: str) -> None:
    def unpack() -> int:
        pieces = context.service.open_source(source_id)
        return context.pod.unpack(pieces, context.working_dir, context.user, overwrite=True)

    context.log(f"unpacked the source tree: {_entries(_patiently(context, unpack))}")


def _save_to_workspace(context: StepContext, step: SaveToWorkspaceStep) -> None:
    count = _pack(context, step.contents)
    context.log(f"saved {_entries(count)} to the workspace")


def _restore_workspace(context: StepContext, step: RestoreWorkspaceStep) -> None:
    """Unpack what all ancestors saved, in their order."""
    target = _target(context, step.dest_dir)
    for operation in context.task.workspace_operations:

        def unpack(
            task_id: str = operation.task_id, number: int = operation.step, over: bool = operation.overwrite
        ) -> int:
            pieces = context.service.open_workspace_archive(task_id, number)
            return context.pod.unpack(pieces, target, context.user, overwrite=over)

        context.log(f"restored {_entries(_patiently(context, unpack))} of task {operation.task_id}")


def _save_cache(context: StepContext, step: SaveCacheStep) -> None:
    """Save files under the step's key, unless it exists."""
    key = _key(context, step.key)
    context.log(f"cache key: {step.key} -> {key}")
    full = f"{context.task.cache_prefix}-{key}"
    if _patiently(context, lambda: context.service.cache_exists(full)):
        context.log("the cache exists already")
        return
    contents = [
        item if item.paths else msgspec.structs.replace(item, paths=_EVERYTHING)
        for item in step.contents or [ArchiveContents()]
    ]
    try:
        count = _pack(context, contents)
        size = context.archive.stat().st_size
        stored = _patiently(context, lambda: context.service.put_cache(full, _pieces(context.archive), size))
    finally:
        context.archive.unlink(missing_ok=True)
    context.log(f"saved {_entries(count)}" if stored else "the cache exists already")


def _restore_cache(context: StepContext, step: RestoreCacheStep) -> None:
    """Unpack the first cache found under one of the keys; it is no error if there is none."""
    target = _target(context, step.dest_dir)
    for template in step.keys:
        key = _key(context, template)
        context.log(f"cache key: {template} -> {key}")

        def unpack(full: str = f"{context.task.cache_prefix}-{key}") -> int:
            pieces = context.service.open_cache(full, prefix=True)
            return context.pod.unpack(pieces, target, context.user, overwrite=True)

        try:
            context.log(f"restored {_entries(_patiently(context, unpack))}")
        except NotFoundError:
            continue
        return
    context.log("no cache found")


def _pack(context: StepContext, contents: list[ArchiveContents]) -> int:
    """Write the step's archive completely or not at all: the service fetches it by its name."""
    temporary = context.archive.with_suffix(".part")
    temporary.parent.mkdir(0o711, exist_ok=True)
    try:
        packed = context.pod.pack(temporary, contents, context.working_dir, context.user)
        temporary.replace(context.archive)
    finally:
        temporary.unlink(missing_ok=True)
    for line in packed.left_out:
        context.log(line)
    return packed.count


def _target(context: StepContext, dest_dir: str) -> str:
    return os.path.normpath(os.path.join(context.working_dir, dest_dir))  # noqa: PTH118 - a path of the pod


def _key(context: StepContext, template: str) -> str:
    if not template:
        raise BadRequestError("the cache key is empty")
    key = expand_key(
        template,
        read=lambda name: context.pod.read(_target(context, name), context.user),
        environment=context.environment,
        arch=context.arch,
    )
    return stored_key(key, _MAX_KEY_BYTES - len(f"{context.task.cache_prefix}-".encode()))


def _patiently(context: StepContext, work: Callable[[], T]) -> T:
    """Call the service; while it cannot be reached, wait and retry."""
    deadline = time.monotonic() + context.patience
    pause = _FIRST_PAUSE
    while True:
        try:
            return work()
        except UnavailableError as error:
            if context.ended.is_set() or time.monotonic() + pause > deadline:
                raise
            if pause == _FIRST_PAUSE:
                context.log(f"{error}; trying again")
            context.ended.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            yield piece


def _entries(count: int) -> str:
    return f"{count} {'entry' if count == 1 else 'entries'}"
