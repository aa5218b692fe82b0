"""A container engine for tests: a running one, or a private podman with an image made of busybox.

The private one works as root without a registry, even without control groups or network: with runc, plain directories
as storage, limits that may be set, and no network.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from agola_core.errors import AgolaError
from agola_core.executor.drivers.container import ContainerDriver, EngineOptions

IMAGE = "agola-test"
_BUSYBOX = "/bin/busybox"
_PROGRAMS = (
    *("cat", "chmod", "date", "echo", "env", "false", "grep", "head", "id", "kill", "ln", "ls", "mkdir", "printf"),
    *("pwd", "readlink", "rm", "rmdir", "setsid", "sh", "sleep", "stat", "touch", "true", "wc", "yes"),
)
_CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
cgroupns = "host"
[engine]
cgroup_manager = "cgroupfs"
"""
_START_SECONDS = 90.0


class EngineMissingError(Exception):
    """There is no working engine; the message tells why, in the engine's own words if it had any."""


class ContainerEngine:
    """A working engine.

    Attributes:
        options: Options for using it.
        image: An available image, with `/bin/sh` and the usual programs.
    """

    def __init__(self, options: EngineOptions, image: str) -> None:
        self.options = options
        self.image = image


@contextlib.contextmanager
def start_engine(directory: Path, external: str = "", image: str = "busybox") -> Iterator[ContainerEngine]:
    """Yield a running engine, or a private podman.

    Args:
        directory: Directory for all data of a private one.
        external: URL of a running engine; "" for a private one.
        image: An image that the running engine has or can pull.

    Raises:
        EngineMissingError: There is none, or it cannot run a container.
    """
    if external:
        options = EngineOptions(socket=external, pull="missing")
        engine = ContainerEngine(options, image)
        _probe(engine)
        yield engine
        return
    podman, busybox = shutil.which("podman"), shutil.which("busybox") or _BUSYBOX
    if podman is None or not Path(busybox).exists():
        raise EngineMissingError("podman or busybox is not installed, and --agola-container-engine names no engine")
    configuration = directory / "containers.conf"
    configuration.write_text(_CONFIGURATION)
    environment = {**os.environ, "CONTAINERS_CONF": str(configuration)}
    storage = ["--root", str(directory / "root"), "--runroot", str(directory / "run")]
    command = [podman, "--runtime=runc", "--storage-driver=vfs", *storage]
    done = subprocess.run(
        [*command, "import", "-", IMAGE], input=_image(Path(busybox)), capture_output=True, check=False, env=environment
    )
    if done.returncode:
        raise EngineMissingError(f"podman says: {done.stderr.decode(errors='replace').strip()}")
    socket = directory / "sock"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "system", "service", "--time=0", f"unix://{socket}"], stdout=log, stderr=log, env=environment
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise EngineMissingError(f"podman says: {(directory / 'log').read_text(errors='replace').strip()}")
            time.sleep(0.02)
        limits = {"nofile": "1024:1024", "nproc": "1024:1024"}
        options = EngineOptions(socket=f"unix://{socket}", pull="never", network="none", ulimits=limits)
        engine = ContainerEngine(options, IMAGE)
        _probe(engine)
        yield engine
    finally:
        subprocess.run([*command, "rm", "-af", "-t", "0"], capture_output=True, check=False, env=environment)
        process.terminate()
        process.wait(10)


def _probe(engine: ContainerEngine) -> None:
    """Run a container, to tell an engine that cannot from a failing test."""
    from agola_core.executor.drivers.container.engine import Engine  # noqa: PLC0415 - beside what it probes

    try:
        ContainerDriver(engine.options)
        with contextlib.closing(Engine(engine.options)) as connection:
            connection.fetch_image(engine.image, {}, lambda _: None)
            container = connection.create(
                engine.image,
                entrypoint=["/bin/sh", "-c", "sleep 60"],
                environment={},
                user="",
                privileged=False,
                labels={},
                mounts={},
            )
            connection.remove(container)
    except AgolaError as error:
        raise EngineMissingError(str(error)) from error


def _image(busybox: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("home", 0o755)):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            archive.addfile(folder)
        files = {
            "bin/busybox": (0o755, busybox.read_bytes()),
            "etc/passwd": (0o644, b"root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/home/nobody:/bin/sh\n"),
            "etc/group": (0o644, b"root:x:0:\nnobody:x:65534:\n"),
        }
        for name, (mode, content) in files.items():
            file = tarfile.TarInfo(name)
            file.mode, file.size = mode, len(content)
            archive.addfile(file, io.BytesIO(content))
        home = tarfile.TarInfo("home/nobody")
        home.type, home.mode, home.uid, home.gid = tarfile.DIRTYPE, 0o755, 65534, 65534
        archive.addfile(home)
        for program in _PROGRAMS:
            link = tarfile.TarInfo(f"bin/{program}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return buffer.getvalue()
