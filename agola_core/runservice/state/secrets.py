"""Secrets of runs: stored apart from the run's configuration, which everybody may see, and deleted with the run.

Whoever creates a run says which values are secret. In environments, commands and registry logins the stored
configuration has `HIDDEN` in their place. The original configuration is stored in object storage under the run's id, is
in no export, and is read only for executors' tasks and for restarts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime
from threading import Lock

import msgspec
from msgspec.structs import replace

from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import BadRequestError, ConflictError, CorruptionError, NotFoundError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.model import object_paths
from agola_core.runservice.model.types import (
    MIN_HIDDEN_CHARACTERS,
    Container,
    RegistryAuth,
    RunConfig,
    RunConfigTask,
    RunStep,
    Step,
)
from agola_core.runtime import faultpoints

faultpoints.declare("secrets.before-write", "secrets.before-delete")

HIDDEN = "***"
MAX_SECRETS = 200
_FORMAT = 1
_KEPT = 256


class RunSecrets(msgspec.Struct, frozen=True):
    """The stored secrets of a run.

    Attributes:
        config: The run's original configuration.
        values: The secret values in it.
        format: The version of this record.
    """

    config: RunConfig
    values: tuple[str, ...]
    format: int = _FORMAT


def checked(values: Iterable[str]) -> tuple[str, ...]:
    """Return the secret values of a request, each once, without the empty one.

    Raises:
        BadRequestError: There are too many.
    """
    found = tuple(dict.fromkeys(value for value in values if value))
    if len(found) > MAX_SECRETS:
        raise BadRequestError(f"{len(found)} secrets; at most {MAX_SECRETS}")
    return found


def redacted(config: RunConfig, values: tuple[str, ...]) -> RunConfig:
    """Return a run's configuration with its secrets hidden.

    Args:
        config: The configuration.
        values: The secret values.
    """
    whole = frozenset(values)
    parts = sorted((value for value in values if len(value) >= MIN_HIDDEN_CHARACTERS), key=len, reverse=True)

    def hide(text: str) -> str:
        if text in whole:
            return HIDDEN
        for part in parts:
            text = text.replace(part, HIDDEN)
        return text

    def hide_all(environment: dict[str, str]) -> dict[str, str]:
        return {name: hide(value) for name, value in environment.items()}

    def hide_step(step: Step | None) -> Step | None:
        if not isinstance(step, RunStep):
            return step
        environment = hide_all(step.environment)
        return replace(step, name=hide(step.name), command=hide(step.command), environment=environment)

    def hide_container(container: Container) -> Container:
        return replace(container, environment=hide_all(container.environment))

    def hide_auth(auth: RegistryAuth) -> RegistryAuth:
        return replace(auth, username=hide(auth.username), password=hide(auth.password), auth=hide(auth.auth))

    def hide_task(task: RunConfigTask) -> RunConfigTask:
        auths = task.docker_registries_auth
        return replace(
            task,
            environment=hide_all(task.environment),
            steps=[hide_step(step) for step in task.steps],
            runtime=replace(task.runtime, containers=[hide_container(item) for item in task.runtime.containers]),
            docker_registries_auth=None if auths is None else {name: hide_auth(auth) for name, auth in auths.items()},
        )

    return replace(
        config,
        static_environment=hide_all(config.static_environment),
        environment=hide_all(config.environment),
        tasks={task_id: hide_task(task) for task_id, task in config.tasks.items()},
        has_secrets=True,
    )


def hidden(text: str, values: Iterable[str]) -> str:
    """Return an executor's text with secrets hidden, whether verbatim, line by line, or quoted."""
    forms = {form for value in values for form in (value, *map(str.strip, value.splitlines()), repr(value)[1:-1])}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= MIN_HIDDEN_CHARACTERS:
            text = text.replace(form, HIDDEN)
    return text


def _told_apart(config: RunConfig) -> tuple[object, ...]:
    """Return what distinguishes a run from one of another store, hidden or not: task ids are used once."""
    return config.name, config.group, frozenset(config.tasks)


def _not_here(run_id: str) -> ConflictError:
    return ConflictError(f"the secrets of run {run_id!r} are not here, since exports do not hold them: make a new run")


class SecretStore:
    """The secrets of all runs.

    Args:
        storage: Holds them.
        read_config: Returns the configuration of a run, its secrets hidden.
    """

    def __init__(self, storage: ObjectStorage, read_config: Callable[[str], RunConfig]) -> None:
        self._storage = storage
        self._read_config = read_config
        self._lock = Lock()
        self._kept: OrderedDict[str, RunSecrets] = OrderedDict()

    def write(self, config: RunConfig, values: tuple[str, ...]) -> RunConfig:
        """Store a configuration and the secrets in it; return what may be seen of it.

        Called before the run is committed; of one that never is, `sweep` deletes what was written.
        """
        if not values:
            return config
        faultpoints.reach("secrets.before-write")
        self._storage.write(object_paths.secrets(config.id), msgspec.json.encode(RunSecrets(config, values)))
        return redacted(config, values)

    def find(self, run_id: str) -> RunSecrets:
        """Return a run's whole configuration with its secrets, none for a run that has none.

        Raises:
            NotFoundError: There is no such run.
            ConflictError: Its secrets are gone: they are in no export.
            CorruptionError: They are damaged.
        """
        seen = self._read_config(run_id)
        if not seen.has_secrets:
            return RunSecrets(seen, ())
        with self._lock:
            kept = self._kept.get(run_id)
        if kept is None:
            kept = self._read(run_id)
            with self._lock:
                self._kept[run_id] = kept
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        if _told_apart(kept.config) != _told_apart(seen):  # those of a run of that id that was imported over
            raise _not_here(run_id)
        return kept

    def delete(self, run_id: str) -> None:
        """Delete a run's secrets, if it has any; the run was deleted."""
        with self._lock:
            self._kept.pop(run_id, None)
        faultpoints.reach("secrets.before-delete")
        try:
            self._storage.delete(object_paths.secrets(run_id))
        except NotFoundError:
            return

    def sweep(self, exists: Callable[[str], bool], before: datetime) -> None:
        """Delete secrets of no run: it was never committed, its deletion was cut short, or an import replaced it.

        Args:
            exists: Returns whether there is a run.
            before: Only secrets written before this time.
        """
        for info in list(self._storage.list(object_paths.SECRETS)):
            run_id = object_paths.run_of_secrets(info.path)
            if info.modified is not None and info.modified < before and not exists(run_id):
                self.delete(run_id)

    def _read(self, run_id: str) -> RunSecrets:
        path = object_paths.secrets(run_id)
        try:
            data = self._storage.read(path)
        except NotFoundError:
            raise _not_here(run_id) from None
        try:
            found = msgspec.json.decode(data, type=RunSecrets)
        except DECODE_ERRORS as error:
            raise CorruptionError(f"not the secrets of a run: {error}", path=path) from error
        if found.config.id != run_id:
            raise CorruptionError(f"the secrets of run {found.config.id!r}, not of {run_id!r}", path=path)
        return found
