"""Converts a configured run to the tasks that the run service gets. Pure except for new ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from agola_core.encoding.suggestions import did_you_mean
from agola_core.errors import ConfigError
from agola_core.runconfig.model import (
    CloneStep,
    CommandStep,
    Config,
    Logins,
    RunDefinition,
    StepDefinition,
    TaskDefinition,
    Value,
    Values,
    Variable,
)
from agola_core.runconfig.when import matches
from agola_core.runservice.model.types import (
    Container,
    Depend,
    RegistryAuth,
    RunConfigTask,
    RunStep,
    Runtime,
    Step,
    TemporaryFileSystem,
    Volume,
)

_NO_SOURCE = """\
echo "this run's tree was packed by agola_core: this executor does not know how to unpack it" >&2
exit 1
"""

_CLONE = """\
set -e
mkdir -p ~/.ssh && chmod 700 ~/.ssh
if [ -n "$AGOLA_SSHPRIVKEY" ]; then
    (umask 077 && printf '%s\\n' "$AGOLA_SSHPRIVKEY" > ~/.ssh/id_rsa)
fi
if [ -n "$AGOLA_SSHHOSTKEY" ]; then
    printf '%s\\n' "$AGOLA_SSHHOSTKEY" >> ~/.ssh/known_hosts
fi
if [ -n "$AGOLA_GIT_HOST" ]; then
    checking=yes
    if [ -n "$AGOLA_SKIPSSHHOSTKEYCHECK" ]; then checking=no; fi
    printf 'Host %s\\n  Port %s\\n  StrictHostKeyChecking %s\\n' \\
        "$AGOLA_GIT_HOST" "${AGOLA_GIT_PORT:-22}" "$checking" > ~/.ssh/config
fi
git init -q .
git remote add origin "$AGOLA_REPOSITORY_URL"
git fetch -q origin "$AGOLA_GIT_REF"
git checkout -q "${AGOLA_GIT_COMMITSHA:-FETCH_HEAD}"
"""


class RunContext(msgspec.Struct, frozen=True):
    """The source and the variables of a run.

    Attributes:
        branch: The branch, "" for none.
        tag: The tag, "" for none.
        ref: The git reference.
        variables: Values for `from_variable`; missing ones are empty, as in Agola.
        source: The id of the packed tree that `clone` unpacks; "" to clone from `AGOLA_REPOSITORY_URL`.
    """

    branch: str = ""
    tag: str = ""
    ref: str = ""
    variables: Mapping[str, str] = {}
    source: str = ""


def is_wanted(run: RunDefinition, context: RunContext) -> bool:
    """Return whether a run's condition holds, so that it is created."""
    return matches(run.when, branch=context.branch, tag=context.tag, ref=context.ref)


def run_tasks(
    config: Config, run: RunDefinition, context: RunContext, new_id: Callable[[], str]
) -> dict[str, RunConfigTask]:
    """Return the tasks of a run by their ids; a task whose condition does not hold is skipped.

    Args:
        config: The configuration of the run.
        run: The run.
        context: The source and the variables of the run.
        new_id: Makes task ids.
    """
    ids = {task.name: new_id() for task in run.tasks}
    return {ids[task.name]: _task(config, run, task, context, ids) for task in run.tasks}


def choose_runs(config: Config, context: RunContext, name: str = "") -> list[RunDefinition]:
    """Return the runs to create: those whose conditions hold, or the one with a given name.

    Raises:
        ConfigError: No run has the name.
    """
    if not name:
        return [run for run in config.runs if is_wanted(run, context)]
    found = [run for run in config.runs if run.name == name]
    if not found:
        known = [run.name for run in config.runs]
        hint = did_you_mean(name, known) or f"; there are {', '.join(map(repr, known))}"
        raise ConfigError(f"no run {name!r}{hint}")
    return found


def _task(
    config: Config, run: RunDefinition, task: TaskDefinition, context: RunContext, ids: Mapping[str, str]
) -> RunConfigTask:
    variables = context.variables
    logins: Logins = {
        **config.docker_registries_auth,
        **run.docker_registries_auth,
        **task.docker_registries_auth,
    }
    timeouts = (task.timeout, run.task_timeout, config.task_timeout)
    return RunConfigTask(
        id=ids[task.name],
        name=task.name,
        depends={
            ids[dependency.task]: Depend(task_id=ids[dependency.task], conditions=list(dependency.conditions))
            for dependency in task.depends
        },
        runtime=Runtime(
            type=task.runtime.type,
            arch=task.runtime.arch,
            containers=[
                Container(
                    image=container.image,
                    environment=_environment(container.environment, variables),
                    user=container.user,
                    privileged=container.privileged,
                    entrypoint=container.entrypoint,
                    volumes=[
                        Volume(path=volume.path, tmpfs=TemporaryFileSystem(size=volume.size))
                        for volume in container.volumes
                    ],
                )
                for container in task.runtime.containers
            ],
        ),
        environment=_environment(task.environment, variables),
        working_dir=task.working_dir,
        shell=task.shell,
        user=task.user,
        steps=[_step(step, context) for step in task.steps],
        ignore_failure=task.ignore_failure,
        needs_approval=task.approval,
        skip=not matches(task.when, branch=context.branch, tag=context.tag, ref=context.ref)
        or any(dependency.never for dependency in task.depends),
        docker_registries_auth={
            name: RegistryAuth(
                type=login.type,
                username=_value(login.username, variables),
                password=_value(login.password, variables),
                auth=_value(login.auth, variables),
            )
            for name, login in logins.items()
        },
        timeout=next((seconds for seconds in timeouts if seconds is not None), 0.0),
        max_attempts=task.max_attempts,
        labels=task.labels,
    )


def _step(step: StepDefinition, context: RunContext) -> Step:
    match step:
        case CloneStep():
            command = _NO_SOURCE if context.source else _CLONE
            return RunStep(name=step.name, command=command, source=context.source)
        case CommandStep():
            return RunStep(
                name=step.name,
                command=step.command,
                environment=_environment(step.environment, context.variables),
                working_dir=step.working_dir,
                shell=step.shell,
                user=step.user,
                timeout=step.timeout,
            )
        case _:
            return step


def _environment(values: Values, variables: Mapping[str, str]) -> dict[str, str]:
    return {name: _value(value, variables) for name, value in values.items()}


def _value(value: Value, variables: Mapping[str, str]) -> str:
    return variables.get(value.name, "") if isinstance(value, Variable) else value
