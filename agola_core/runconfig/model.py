"""The model of a checked run configuration, before it is converted to the tasks of one run."""

from __future__ import annotations

import msgspec

from agola_core.runconfig.findings import Finding
from agola_core.runconfig.when import When
from agola_core.runservice.model.types import (
    DependCondition,
    RestoreCacheStep,
    RestoreWorkspaceStep,
    SaveCacheStep,
    SaveToWorkspaceStep,
)


class Variable(msgspec.Struct, frozen=True):
    """A value taken from a variable of the project."""

    name: str


Value = str | Variable
Values = dict[str, Value]


class CloneStep(msgspec.Struct, frozen=True):
    """Checks out the source of the run in the working directory."""

    name: str = "Clone repository and checkout code"


class CommandStep(msgspec.Struct, frozen=True):
    """Runs a command."""

    name: str
    command: str
    environment: Values = {}
    working_dir: str = ""
    shell: str = ""
    user: str = ""
    timeout: float = 0.0


StepDefinition = CloneStep | CommandStep | SaveToWorkspaceStep | RestoreWorkspaceStep | SaveCacheStep | RestoreCacheStep


class RegistryLogin(msgspec.Struct, frozen=True):
    """How to log in to a container registry."""

    type: str
    username: Value = ""
    password: Value = ""
    auth: Value = ""


Logins = dict[str, RegistryLogin]


class TemporaryVolume(msgspec.Struct, frozen=True):
    """An in-memory directory of a container.

    Attributes:
        path: Its path.
        size: Its maximum size in bytes; 0 for no limit of its own.
    """

    path: str
    size: int = 0


class ContainerDefinition(msgspec.Struct, frozen=True):
    """A container of a runtime."""

    image: str
    environment: Values = {}
    user: str = ""
    privileged: bool = False
    entrypoint: str = ""
    volumes: tuple[TemporaryVolume, ...] = ()


class RuntimeDefinition(msgspec.Struct, frozen=True):
    """The runtime of a task."""

    type: str = "pod"
    arch: str = ""
    containers: tuple[ContainerDefinition, ...] = ()


class Dependency(msgspec.Struct, frozen=True):
    """A dependency on another task.

    Attributes:
        task: The other task's name.
        conditions: How it must have ended.
        never: Its conditions are all unknown, so they never hold.
    """

    task: str
    conditions: tuple[DependCondition, ...] = (DependCondition.ON_SUCCESS,)
    never: bool = False


class TaskDefinition(msgspec.Struct, frozen=True):
    """A task.

    Attributes:
        timeout: Seconds; None for the run's.
    """

    name: str
    steps: tuple[StepDefinition, ...]
    runtime: RuntimeDefinition = RuntimeDefinition()
    environment: Values = {}
    working_dir: str = ""
    shell: str = ""
    user: str = ""
    when: When | None = None
    ignore_failure: bool = False
    approval: bool = False
    depends: tuple[Dependency, ...] = ()
    docker_registries_auth: Logins = {}
    timeout: float | None = None
    max_attempts: int = 0
    labels: dict[str, str] = {}


class RunDefinition(msgspec.Struct, frozen=True):
    """A run.

    Attributes:
        task_timeout: Seconds, for tasks without their own; None for the configuration's.
    """

    name: str
    tasks: tuple[TaskDefinition, ...]
    when: When | None = None
    docker_registries_auth: Logins = {}
    task_timeout: float | None = None


class Config(msgspec.Struct, frozen=True):
    """A whole configuration.

    Attributes:
        task_timeout: Seconds, for runs without their own; None for no timeout.
        findings: Warnings and other remarks.
    """

    runs: tuple[RunDefinition, ...]
    docker_registries_auth: Logins = {}
    task_timeout: float | None = None
    findings: tuple[Finding, ...] = ()
