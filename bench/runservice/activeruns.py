"""Stores with many active runs, and an executor that the measurement plays."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from agola_core.coordinator.port import Op
from agola_core.datamanager import DataManager, Put
from agola_core.errors import NotFoundError
from agola_core.runservice.archive.projection import RUN_CONFIG
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import (
    Depend,
    Executor,
    ExecutorPhase,
    ExecutorTask,
    ExecutorTaskStepStatus,
    RunConfigTask,
    RunPhase,
    RunStep,
)
from agola_core.runservice.rules import advance, new_run
from agola_core.runservice.service import RunService
from agola_core.runservice.state.run_record import run_ops
from agola_core.sequence import Sequence

_PART = 1000


def fill(dm: DataManager, count: int) -> None:
    """Make runs that are active and wait for somebody's approval: nothing is to be done for them."""
    for start in range(0, count, _PART):
        configs: list[Put] = []
        ops: list[Op] = []
        for number in range(start, min(count, start + _PART)):
            run_id = str(Sequence(0, 1 + number))  # older than those that the service makes
            task = RunConfigTask(id=f"idle-{number}", name="idle", depends={}, needs_approval=True)
            request = RunCreateRequest(run_config_tasks={task.id: task}, group=f"/project/{number % 100}/pr/{number}")
            bundle = new_run.new_run(request, run_id, number, datetime.now(UTC))
            run = msgspec.structs.replace(bundle.run, phase=RunPhase.RUNNING)
            run, _ = advance.advance_tasks(run, bundle.run_config, {})
            configs.append(Put(RUN_CONFIG, run_id, msgspec.json.encode(bundle.run_config)))
            ops += run_ops(run)
        dm.write_wal(configs)
        for at in range(0, len(ops), dm.coordinator.max_txn_ops):
            dm.coordinator.txn([], ops[at : at + dm.coordinator.max_txn_ops])


def chain(name: str, length: int) -> RunCreateRequest:
    """Return a run of tasks that follow each other."""
    tasks = {}
    for number in range(length):
        task_id = f"{name}-{number}"
        depends = {f"{name}-{number - 1}": Depend(task_id=f"{name}-{number - 1}")} if number else {}
        tasks[task_id] = RunConfigTask(id=task_id, name=task_id, depends=depends, steps=[RunStep(command="true")])
    return RunCreateRequest(run_config_tasks=tasks, name=name, group=f"/project/{name}/branch/main")


class PlayedExecutor:
    """An executor whose tasks end as soon as they come; it notes when they did.

    Args:
        service: Whose.
    """

    def __init__(self, service: RunService) -> None:
        self.side = service.executor_side
        self.came: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.condition = threading.Condition()
        self.side.take_executor_status(Executor(id="played", archs=["amd64"]))

    def submit(self, task: ExecutorTask) -> None:
        """Take a task and end it."""
        if task.stop:
            return
        with self.condition:
            self.came[task.id] = time.perf_counter()
            self.condition.notify_all()
        done = ExecutorTaskStepStatus(phase=ExecutorPhase.SUCCESS)
        status = msgspec.structs.replace(
            task.status, phase=ExecutorPhase.SUCCESS, steps=[done for _ in task.steps], setup_step=done
        )
        self.ended[task.id] = time.perf_counter()
        self.side.take_task_status("played", msgspec.structs.replace(task, status=status))

    def open_log(self, task_id: str, step: int | None, *, follow: bool, offset: int = 0) -> Iterator[bytes]:  # noqa: ARG002 - the protocol's
        """Yield a log."""
        yield b"log\n"[offset:]

    def open_times(self, task_id: str, step: int | None, *, offset: int = 0) -> Iterator[bytes]:  # noqa: ARG002 - the protocol's
        """Raise: nothing is recorded."""
        raise NotFoundError("no times")

    def open_archive(self, task_id: str, step: int, *, offset: int = 0) -> Iterator[bytes]:  # noqa: ARG002 - the protocol's
        """Yield an archive."""
        yield b"archive"[offset:]
