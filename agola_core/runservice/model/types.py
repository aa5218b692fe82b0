"""The run service's records, exactly as Agola 0.2 stores and sends them.

Executors and clients share these types. Field names, omitted empty fields, and the few fields that are always
sent are the wire format. Fields that Agola does not know are marked as additions: its decoders ignore them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import datetime
from typing import Any, Self, TypeVar

import msgspec

T = TypeVar("T")


def _always(default: T) -> Any:
    """Return a field with a default that is sent even when it has it."""
    return msgspec.field(default_factory=_constant(default))


def _constant(value: T) -> Callable[[], T]:
    return lambda: value


_GOING_ON = frozenset(("queued", "notstarted", "running"))
"""The phases and statuses of what has not ended."""


class _Phase(enum.StrEnum):
    """A state that an object has until it ends.

    Attributes:
        is_finished: Whether it has ended; computed once, because every step of a run reads it for every task.
    """

    is_finished: bool

    def __new__(cls, value: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.is_finished = value not in _GOING_ON
        return member


class RunPhase(_Phase):
    """How far a run has come."""

    SETUP_ERROR = "setuperror"
    QUEUED = "queued"
    CANCELLED = "cancelled"
    RUNNING = "running"
    FINISHED = "finished"


class RunResult(enum.StrEnum):
    """How a run ended; unknown until it is decided."""

    UNKNOWN = "unknown"
    STOPPED = "stopped"
    SUCCESS = "success"
    FAILED = "failed"

    @property
    def is_set(self) -> bool:
        """Whether the result is decided."""
        return self is not RunResult.UNKNOWN


class TaskStatus(_Phase):
    """The state of a run's task."""

    NOT_STARTED = "notstarted"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    RUNNING = "running"
    STOPPED = "stopped"
    SUCCESS = "success"
    FAILED = "failed"


class ExecutorPhase(_Phase):
    """The state of a task or a step on its executor."""

    NOT_STARTED = "notstarted"
    CANCELLED = "cancelled"
    RUNNING = "running"
    STOPPED = "stopped"
    SUCCESS = "success"
    FAILED = "failed"


class FetchPhase(enum.StrEnum):
    """Whether a log or an archive was copied from its executor into object storage."""

    NOT_STARTED = "notstarted"
    FINISHED = "finished"


class DependCondition(enum.StrEnum):
    """How a parent must have ended for a task to run."""

    ON_SUCCESS = "on_success"
    ON_FAILURE = "on_failure"
    ON_SKIPPED = "on_skipped"


MIN_HIDDEN_CHARACTERS = 4
"""The shortest secret that is hidden inside other text and in logs: a shorter one would hide what is none."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Base of the records: frozen, empty fields left out, unknown fields ignored."""


class ArchiveContents(Record, frozen=True):
    """Which files an archive takes.

    Attributes:
        source_dir: Where the paths start; relative to the working directory.
        dest_dir: Where they go inside the archive.
        paths: Globs relative to `source_dir`, with `**`.
    """

    source_dir: str = ""
    dest_dir: str = ""
    paths: list[str] = []


class RunStep(Record, frozen=True, tag="run"):
    """Run a command.

    Attributes:
        name: What people see.
        command: Given to the shell as a file; empty runs the shell itself.
        environment: Over the task's.
        working_dir: Over the task's.
        shell: Over the task's.
        user: Over the task's.
        source: The id of a source archive that is unpacked into the working directory instead of running the
            command: how a local or direct run's `clone` gets its tree. An addition; an executor that does not
            know it runs the command, which fails and says why.
        timeout: Seconds after which the step fails; 0 for never. An addition.
    """

    name: str = ""
    command: str = ""
    environment: dict[str, str] = {}
    working_dir: str = ""
    shell: str = ""
    user: str = ""
    source: str = ""
    timeout: float = 0.0


class SaveToWorkspaceStep(Record, frozen=True, tag="save_to_workspace"):
    """Save files for the tasks that depend on this one.

    Attributes:
        name: What people see.
        contents: Which files.
        always: Also when a step before it has failed, as reports of failed tests need it. An addition.
    """

    name: str = ""
    contents: list[ArchiveContents] = []
    always: bool = False


class RestoreWorkspaceStep(Record, frozen=True, tag="restore_workspace"):
    """Unpack what all ancestors saved."""

    name: str = ""
    dest_dir: str = ""


class SaveCacheStep(Record, frozen=True, tag="save_cache"):
    """Save files under a key for later runs, unless the key exists."""

    name: str = ""
    key: str = ""
    contents: list[ArchiveContents] = []


class RestoreCacheStep(Record, frozen=True, tag="restore_cache"):
    """Unpack the first cache found under one of the keys, each taken as a prefix."""

    name: str = ""
    keys: list[str] = []
    dest_dir: str = ""


Step = RunStep | SaveToWorkspaceStep | RestoreWorkspaceStep | SaveCacheStep | RestoreCacheStep


class TemporaryFileSystem(Record, frozen=True):
    """A file system in memory: its size in bytes, 0 for no limit of its own."""

    size: int = _always(0)


class Volume(Record, frozen=True):
    """A directory mounted into a container; from Agola 0.3."""

    path: str = _always("")
    tmpfs: TemporaryFileSystem | None = _always(None)


class Container(Record, frozen=True):
    """A container of a task's runtime; the first one runs the steps."""

    image: str = ""
    environment: dict[str, str] = {}
    user: str = ""
    privileged: bool = _always(False)
    entrypoint: str = _always("")
    volumes: list[Volume] = []


class Runtime(Record, frozen=True):
    """Where a task runs. `type` is `pod`; the host driver ignores the containers' images."""

    type: str = ""
    arch: str = ""
    containers: list[Container] = []


class RegistryAuth(Record, frozen=True):
    """How to log in to a container registry: `basic` or `encodedauth`."""

    type: str = _always("")
    username: str = _always("")
    password: str = _always("")
    auth: str = _always("")


class Depend(Record, frozen=True):
    """A task's dependency; no conditions mean `on_success`."""

    task_id: str = ""
    conditions: list[DependCondition] = []


class RunConfigTask(Record, frozen=True):
    """A task as it was configured.

    Attributes:
        level: 0 without parents, else one more than the deepest parent.
        id: Unique within the service; kept by restarts for tasks that are not run again.
        depends: By the id of the task depended on.
        timeout: Seconds after which the task is stopped as failed; 0 for never. An addition.
        max_attempts: How often the task is tried when its executor is lost; 0 and 1 mean once. An addition.
        labels: What the executor's labels must say. An addition.
    """

    level: int = 0
    id: str = ""
    name: str = ""
    depends: dict[str, Depend] | None = _always(None)
    runtime: Runtime = Runtime()
    environment: dict[str, str] = {}
    working_dir: str = ""
    shell: str = ""
    user: str = ""
    steps: list[Step | None] = []
    ignore_failure: bool = False
    needs_approval: bool = False
    skip: bool = False
    docker_registries_auth: dict[str, RegistryAuth] | None = _always(None)
    timeout: float = 0.0
    max_attempts: int = 0
    labels: dict[str, str] = {}


class RunConfig(Record, frozen=True):
    """What a run was created from; stored under the run's id and never changed.

    Attributes:
        has_secrets: Some values are hidden here and stored apart (see `secrets`). An addition.
    """

    id: str = ""
    name: str = ""
    group: str = ""
    setup_errors: list[str] = []
    annotations: dict[str, str] = {}
    static_environment: dict[str, str] = {}
    environment: dict[str, str] = {}
    tasks: dict[str, RunConfigTask] = {}
    cache_group: str = ""
    has_secrets: bool = False


class RunTaskStep(Record, frozen=True):
    """The state of a step in its run.

    Attributes:
        exit_code: Of a command that has ended. An addition.
        log_lost: The log will never be in storage: its executor is gone, or had none. An addition.
        log_text: The whole log where it is not in storage: an empty one, or the only line of a set-up. An addition.
    """

    phase: ExecutorPhase | None = None
    log_phase: FetchPhase | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    exit_code: int | None = None
    log_lost: bool = False
    log_text: str | None = None


class RunTask(Record, frozen=True):
    """The state of a task in its run.

    Attributes:
        workspace_archives: The numbers of the steps that save to the workspace.
        workspace_archives_phase: For each of them whether its archive was fetched.
        archives_lost: The steps whose archives will never be in storage. An addition.
        reason: Why the task failed or was stopped, where its steps do not tell. An addition.
        attempt: Which start of the task this is, from 1; 0 before the first. An addition.
        reports: The steps whose archives have reports of tests or coverage (see `reports`). An addition.
    """

    id: str = ""
    status: TaskStatus = _always(TaskStatus.NOT_STARTED)
    annotations: dict[str, str] = {}
    skip: bool = False
    waiting_approval: bool = False
    approved: bool = False
    setup_step: RunTaskStep = _always(RunTaskStep())
    steps: list[RunTaskStep] = []
    workspace_archives: list[int] = []
    workspace_archives_phase: list[FetchPhase] = []
    start_time: datetime | None = None
    end_time: datetime | None = None
    archives_lost: list[int] = []
    reason: str = ""
    attempt: int = 0
    reports: list[int] = []


class Run(Record, frozen=True):
    """The state of a run.

    Attributes:
        restarted_from: The id of the run that this one restarts; "" for none. An addition.
    """

    id: str = ""
    name: str = ""
    counter: int = 0
    group: str = ""
    annotations: dict[str, str] = {}
    phase: RunPhase = _always(RunPhase.QUEUED)
    result: RunResult = _always(RunResult.UNKNOWN)
    stop: bool = False
    tasks: dict[str, RunTask] = {}
    enqueue_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    archived: bool = False
    restarted_from: str = ""


class RunEvent(Record, frozen=True):
    """A change of a run's phase or result. Go's names on the wire."""

    sequence: str = msgspec.field(name="Sequence", default_factory=str)
    run_id: str = msgspec.field(name="RunID", default_factory=str)
    phase: RunPhase = msgspec.field(name="Phase", default_factory=_constant(RunPhase.QUEUED))
    result: RunResult = msgspec.field(name="Result", default_factory=_constant(RunResult.UNKNOWN))


class ExecutorTaskStepStatus(Record, frozen=True):
    """The state of a step on its executor.

    Attributes:
        exit_code: Of a command that has ended by itself; Agola leaves 0 out, too.
        log_text: The whole log of an ended task's step, if it is empty or the only line of a set-up: nobody needs to
            fetch it. An addition.
    """

    phase: ExecutorPhase = _always(ExecutorPhase.NOT_STARTED)
    start_time: datetime | None = None
    end_time: datetime | None = None
    exit_code: int | None = None
    log_text: str | None = None


class ExecutorTaskStatus(Record, frozen=True):
    """The state of a task on its executor."""

    executor_id: str = ""
    phase: ExecutorPhase = _always(ExecutorPhase.NOT_STARTED)
    setup_step: ExecutorTaskStepStatus = _always(ExecutorTaskStepStatus())
    steps: list[ExecutorTaskStepStatus] = []
    start_time: datetime | None = None
    end_time: datetime | None = None


class WorkspaceOperation(Record, frozen=True):
    """An archive that `restore_workspace` unpacks: a task's and the number of its step."""

    task_id: str = ""
    step: int = 0
    overwrite: bool = False


class ExecutorTask(Record, frozen=True):
    """A task as an executor gets it; the id is the run task's, so it is started at most once.

    Attributes:
        revision: The coordinator's revision at the read.
        setup_error: Why the set-up failed. Go's name on the wire.
        fail_error: Why the task failed, where its steps do not tell. Go's name on the wire.
        stop: The service wants the task stopped.
        attempt: Which start of the task this is; an update of another attempt changes nothing. An addition.
        timeout: Seconds after which the executor stops the task as failed; 0 for never. An addition.
        secrets: The values that logs must not show. An addition.
    """

    revision: int = 0
    id: str = ""
    run_id: str = ""
    task_name: str = ""
    arch: str = ""
    containers: list[Container] = []
    environment: dict[str, str] = {}
    working_dir: str = ""
    shell: str = ""
    user: str = ""
    privileged: bool = _always(False)
    docker_registries_auth: dict[str, RegistryAuth] | None = _always(None)
    steps: list[Step | None] = []
    status: ExecutorTaskStatus = _always(ExecutorTaskStatus())
    setup_error: str = msgspec.field(name="SetupError", default_factory=str)
    fail_error: str = msgspec.field(name="FailError", default_factory=str)
    workspace_operations: list[WorkspaceOperation] = []
    cache_prefix: str = ""
    stop: bool = False
    attempt: int = 0
    timeout: float = 0.0
    secrets: list[str] = []


ZERO_TIME = datetime.fromisoformat("0001-01-01T00:00:00+00:00")
"""Go's zero time, which its JSON always carries."""


class Executor(Record, frozen=True):
    """An executor as it reports itself.

    Attributes:
        listen_url: Where the service reaches it. Camel case on the wire.
        listen_token: Its own token: what it shows to speak for its id, and what the service shows it. Never told to
            anybody else. "" for Agola's executors, which have none.
        active_tasks_limit: 0 for no limit.
        last_status_update_time: By the service's clock.
    """

    id: str = ""
    listen_url: str = msgspec.field(name="listenURL", default="")
    listen_token: str = ""
    archs: list[str] = []
    labels: dict[str, str] = {}
    allow_privileged_containers: bool = False
    active_tasks_limit: int = 0
    active_tasks: int = 0
    dynamic: bool = False
    executor_group: str = ""
    siblings_executors: list[str] = []
    last_status_update_time: datetime = _always(ZERO_TIME)
