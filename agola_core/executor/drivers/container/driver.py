"""The container driver: a task is a few containers that share a network; steps run in the first.

Any Docker-compatible engine does. A task's containers are known by their labels, so the next executor finds them again.
The first image needs `/bin/sh` and `id`. The engine must see the executor's files under the same paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from agola_core.errors import ConfigError, ConflictError, ForbiddenError, NotFoundError, UnavailableError
from agola_core.executor.drivers.container.engine import Engine, EngineOptions
from agola_core.executor.drivers.container.pod import INSIDE, SHARED, ContainerPod
from agola_core.executor.drivers.container.process import ContainerProcess
from agola_core.executor.drivers.exitfile import has_begun
from agola_core.runservice.model.types import Container, ExecutorPhase, ExecutorTask

LABEL_EXECUTOR, LABEL_TASK, LABEL_INDEX = "agola.executorid", "agola.taskid", "agola.containerindex"
_SLEEPER = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 86400 & wait $!; done"]


class ContainerDriver:
    """Runs tasks in containers of an engine (see `port.Driver`).

    Args:
        options: How the engine is used.

    Raises:
        ConfigError: The extra `container` is missing, or an option is wrong.
        UnavailableError: The engine cannot be reached.
    """

    def __init__(self, options: EngineOptions | None = None) -> None:
        self._options = options or EngineOptions()
        self.allow_privileged = self._options.allow_privileged
        with closing(Engine(self._options)) as engine:
            self.archs = [engine.arch()]

    def open_pod(self, task: ExecutorTask, directory: Path, log: Callable[[str], None]) -> ContainerPod:
        """Return the pod of a task (see the port)."""
        with closing(Engine(self._options)) as engine:
            found = engine.containers([f"{LABEL_EXECUTOR}={task.status.executor_id}", f"{LABEL_TASK}={task.id}"])
            found.sort(key=lambda item: int(item.labels.get(LABEL_INDEX, 0)))
            whole = len(found) == len(task.containers) and bool(found) and found[0].running
            if whole and found[0].labels.get("agola.attempt") == str(task.attempt):
                return ContainerPod(self._options, directory, [item.id for item in found])
            if any(step.phase is not ExecutorPhase.NOT_STARTED for step in task.status.steps):
                raise UnavailableError("the task's containers are gone")
            for item in found:
                engine.remove(item.id)
            made: list[str] = []
            try:
                for index, container in enumerate(task.containers):
                    made.append(self._create(engine, task, container, index, directory, made, log))
                return ContainerPod(self._options, directory, made)
            except BaseException:
                for container_id in made:
                    engine.remove(container_id)
                raise

    def find_process(self, description: Mapping[str, str | int], exit_file: Path) -> ContainerProcess | None:
        """Return a command that an earlier executor started (see the port).

        One that has not begun is started now under the same id: the engine starts none twice.
        """
        engine = Engine(self._options)
        container, exec_id = str(description["container"]), str(description["exec"])
        output: Iterator[object] | None = None
        if not has_begun(exit_file):
            try:
                output = engine.follow_exec(exec_id)
            except NotFoundError:
                engine.close()
                return None
            except ConflictError:
                output = None  # it had been started, and begins
        return ContainerProcess(engine, container, exec_id, exit_file, output)

    def clean(self, executor_id: str, is_known: Callable[[str], bool]) -> None:
        """Remove the containers of unknown tasks (see the port)."""
        with closing(Engine(self._options)) as engine:
            for item in engine.containers([f"{LABEL_EXECUTOR}={executor_id}"]):
                if not is_known(item.labels.get(LABEL_TASK, "")):
                    engine.remove(item.id)

    def _create(
        self,
        engine: Engine,
        task: ExecutorTask,
        container: Container,
        index: int,
        directory: Path,
        made: Sequence[str],
        log: Callable[[str], None],
    ) -> str:
        if not container.image:
            raise ConfigError(f"container {index} has no image")
        if container.privileged and not self.allow_privileged:
            raise ForbiddenError("privileged containers are not allowed on this executor")
        engine.fetch_image(container.image, task.docker_registries_auth or {}, log)
        mounts = {}
        if index == 0:
            for name, mode in SHARED.items():
                (directory / name).mkdir(0o711, exist_ok=True)
                mounts[f"{INSIDE}/{name}"] = str(directory / name), mode
        entrypoint = container.entrypoint.split() or (_SLEEPER if index == 0 else None)
        log(f"starting container {index} of image {container.image!r}")
        return engine.create(
            container.image,
            entrypoint=entrypoint,
            environment=container.environment,
            user=container.user,
            privileged=container.privileged,
            labels={
                LABEL_EXECUTOR: task.status.executor_id,
                LABEL_TASK: task.id,
                LABEL_INDEX: str(index),
                "agola.attempt": str(task.attempt),
            },
            mounts=mounts,
            temporary={volume.path: volume.tmpfs.size for volume in container.volumes if volume.tmpfs},
            network=f"container:{made[0]}" if made else "",
        )
