"""A client for a container engine with a Docker-compatible API, with the errors it raises.

The `docker` package is an extra (`container`); it is imported when a driver is made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from agola_core.encoding.numerals import whole_number
from agola_core.errors import ConfigError, ConflictError, NotFoundError, UnavailableError
from agola_core.executor.drivers.archs import go_arch
from agola_core.executor.drivers.container.images import registry_login, split_image
from agola_core.runservice.model.types import RegistryAuth

_SECONDS = 60
_CONFLICT = 409
_END_SECONDS, _END_POLL_SECONDS = 10.0, 0.02


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a container engine.

    Attributes:
        socket: Where it listens, such as `unix:///run/docker.sock`; "" for the default.
        allow_privileged: Whether privileged containers are run.
        network: The network of a task's containers; "" for the engine's default.
        pull: When an image is fetched: `always`, `missing` or `never`.
        memory: Bytes for each container; 0 for no limit.
        cpus: Processors for each container; 0 for no limit.
        pids: Processes in each container; 0 for no limit.
        runtime: The OCI runtime; "" for the engine's default.
        ulimits: By name, each `SOFT:HARD` or one number for both.
    """

    socket: str = ""
    allow_privileged: bool = False
    network: str = ""
    pull: str = "always"
    memory: int = 0
    cpus: float = 0.0
    pids: int = 0
    runtime: str = ""
    ulimits: dict[str, str] = {}


class Found(msgspec.Struct, frozen=True):
    """An existing container.

    Attributes:
        id: Its id.
        labels: Its labels.
        running: Whether it runs.
    """

    id: str
    labels: dict[str, str]
    running: bool


class Engine:
    """One connection to an engine. One thread at a time.

    Raises:
        ConfigError: The extra is missing, or an option is wrong.
        UnavailableError: The engine cannot be reached.
    """

    def __init__(self, options: EngineOptions) -> None:
        try:
            import docker  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            raise ConfigError("the container driver needs the extra: pip install 'agola-core[container]'") from error
        self._docker = docker
        self._options = options
        path = options.socket.removeprefix("unix://")
        if path != options.socket and not Path(path).exists():
            raise UnavailableError(f"the container engine cannot be reached: there is no socket {path!r}")
        with self._told():
            self._api = docker.APIClient(base_url=options.socket or None, version="auto", timeout=_SECONDS)
        self._limits = [self._ulimit(name, value) for name, value in options.ulimits.items()]

    def close(self) -> None:
        """Close the connection."""
        self._api.close()

    def arch(self) -> str:
        """Return the engine's architecture by its Go name."""
        with self._told():
            return go_arch(str(self._api.version().get("Arch", "")))

    def fetch_image(self, image: str, auths: Mapping[str, RegistryAuth], log: Callable[[str], None]) -> None:
        """Pull an image, as the options say.

        Raises:
            UnavailableError: It cannot be pulled, or is missing.
        """
        if self._options.pull != "always":
            with self._told():
                try:
                    self._api.inspect_image(image)  # type: ignore[no-untyped-call]
                    return
                except self._docker.errors.ImageNotFound:
                    if self._options.pull == "never":
                        raise UnavailableError(f"image {image!r} is not on this engine, and is never pulled") from None
        log(f"pulling image {image!r}")
        repository, tag = split_image(image)
        with self._told():
            answers = self._api.pull(
                repository, tag=tag, stream=True, decode=True, auth_config=registry_login(image, auths)
            )
            for answer in answers:
                if "error" in answer:
                    raise UnavailableError(f"image {image!r} cannot be pulled: {answer['error']}")

    def create(
        self,
        image: str,
        *,
        entrypoint: list[str] | None,
        environment: Mapping[str, str],
        user: str,
        privileged: bool,
        labels: Mapping[str, str],
        mounts: Mapping[str, tuple[str, str]],
        network: str = "",
        temporary: Mapping[str, int] | None = None,
    ) -> str:
        """Create and start a container and return its id.

        Args:
            image: The image.
            entrypoint: Replaces the image's; None for the image's.
            environment: Overrides the image's.
            user: "" for the image's.
            privileged: Whether it has all privileges.
            labels: Its labels.
            mounts: By the path inside: a path of the engine's machine and `ro` or `rw`.
            network: Overrides the options'.
            temporary: Directories in memory, with the maximum bytes of each; 0 for no limit of its own.
        """
        options = self._options
        extra: dict[str, Any] = {"runtime": options.runtime} if options.runtime else {}
        with self._told():
            host = self._api.create_host_config(
                network_mode=network or options.network or None,
                privileged=privileged,
                mem_limit=options.memory or None,
                nano_cpus=int(options.cpus * 1_000_000_000) or None,
                pids_limit=options.pids or None,
                ulimits=self._limits or None,
                tmpfs={path: f"size={size}" if size else "" for path, size in (temporary or {}).items()},
                binds={source: {"bind": inside, "mode": mode} for inside, (source, mode) in mounts.items()},
                security_opt=None if privileged else ["no-new-privileges"],
                **extra,
            )
            made = self._api.create_container(
                image,
                entrypoint=entrypoint,
                command=[] if entrypoint else None,
                environment=dict(environment),
                user=user or None,
                labels=dict(labels),
                host_config=host,
            )
            container: str = made["Id"]
            try:
                self._api.start(container)
            except BaseException:
                self.remove(container)
                raise
        return container

    def containers(self, labels: Collection[str]) -> list[Found]:
        """Return the containers that have all of these labels, each `NAME=VALUE`."""
        with self._told():
            found = self._api.containers(all=True, filters={"label": list(labels)})
        return [Found(item["Id"], item.get("Labels") or {}, item.get("State") == "running") for item in found]

    def environment(self, container: str) -> dict[str, str]:
        """Return a container's environment."""
        with self._told():
            pairs = self._api.inspect_container(container)["Config"].get("Env") or []
        return dict(pair.partition("=")[::2] for pair in pairs)

    def start_exec(self, container: str, argv: list[str], environment: Mapping[str, str], user: str) -> str:
        """Prepare a command in a container and return its id; `follow_exec` starts it."""
        with self._told():
            made = self._api.exec_create(container, argv, environment=dict(environment), user=user)
        exec_id: str = made["Id"]
        return exec_id

    def follow_exec(self, exec_id: str) -> Iterator[tuple[bytes | None, bytes | None]]:
        """Start a prepared command; yield its output and errors until it ends.

        Raises:
            ConflictError: It was started before.
            NotFoundError: The engine no longer knows it.
        """
        with self._told():
            try:
                started = self._api.exec_start(exec_id, stream=True, demux=True)
            except self._docker.errors.APIError as error:
                if error.status_code == _CONFLICT:
                    raise ConflictError(f"the container engine says: {error.explanation or error}") from error
                raise
        return self._followed(started)

    def exec_state(self, exec_id: str) -> tuple[bool, int | None]:
        """Return whether a command is running, and its exit code if it has ended.

        Raises:
            NotFoundError: The engine no longer knows it.
        """
        with self._told():
            found = self._api.exec_inspect(exec_id)
        return bool(found["Running"]), found["ExitCode"]

    def exit_code(self, exec_id: str) -> int:
        """Return the exit code of a command whose output has ended; the engine may know it slightly later.

        Raises:
            UnavailableError: The engine does not tell.
        """
        deadline = time.monotonic() + _END_SECONDS
        while True:
            running, code = self.exec_state(exec_id)
            if not running and code is not None:
                return code
            if time.monotonic() > deadline:
                raise UnavailableError("the container engine does not say how a command ended")
            time.sleep(_END_POLL_SECONDS)

    def run(self, container: str, argv: list[str], user: str) -> tuple[int, bytes, bytes]:
        """Run a short command and return its exit code, output and errors."""
        exec_id = self.start_exec(container, argv, {}, user)
        output, errors = bytearray(), bytearray()
        for out, err in self.follow_exec(exec_id):
            output += out or b""
            errors += err or b""
        return self.exit_code(exec_id), bytes(output), bytes(errors)

    def open_tar(self, container: str, path: str) -> Iterator[bytes]:
        """Yield a tar of a path of a container.

        Raises:
            NotFoundError: There is none.
        """
        with self._told():
            pieces: Iterator[bytes] = self._api.get_archive(container, path)[0]
        return pieces

    def put_tar(self, container: str, path: str, pieces: Iterable[bytes]) -> None:
        """Unpack a tar below a directory of a container."""
        with self._told():
            self._api.put_archive(container, path, iter(pieces))

    def kill(self, container: str) -> None:
        """Kill a container; harmless if it is not running."""
        with self._told():
            try:
                self._api.kill(container)
            except self._docker.errors.APIError as error:
                if error.status_code not in {404, 409, 500}:
                    raise

    def remove(self, container: str) -> None:
        """Remove a container and its volumes; harmless if it is gone."""
        with self._told():
            try:
                self._api.remove_container(container, force=True, v=True)
            except self._docker.errors.NotFound:
                return

    def _followed(self, stream: Any) -> Iterator[tuple[bytes | None, bytes | None]]:
        try:
            with self._told():
                yield from stream
        finally:
            stream._response.close()  # noqa: SLF001 - its own close fails on a stream that has ended

    def _ulimit(self, name: str, value: str) -> Any:
        soft, _, hard = value.partition(":")
        least, most = (-1 if text == "-1" else whole_number(text) for text in (soft, hard or soft))  # -1: none
        if least is None or most is None:
            raise ConfigError(f"ulimit {name}={value!r}: expected SOFT:HARD, both numbers")
        return self._docker.types.Ulimit(name=name, soft=least, hard=most)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Convert the package's errors to this project's, with the engine's own message."""
        import requests  # noqa: PLC0415 - the docker package's

        try:
            yield
        except self._docker.errors.NotFound as error:
            raise NotFoundError(f"the container engine says: {error.explanation or error}") from error
        except self._docker.errors.APIError as error:
            raise UnavailableError(f"the container engine says: {error.explanation or error}") from error
        except self._docker.errors.DockerException as error:
            raise UnavailableError(f"the container engine cannot be reached: {error}") from error
        except (requests.exceptions.RequestException, OSError) as error:
            raise UnavailableError(f"the container engine cannot be reached: {error}") from error
