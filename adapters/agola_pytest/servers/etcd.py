"""Real etcd servers: a process on free loopback ports, and its place in tests that share it.

Also usable outside pytest::

    with start_etcd(directory) as etcd:
        agola_core.open(storage=..., coordinator=etcd.url("my-store"), data_types=[...])
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from agola_pytest.servers.ports import free_ports, retry_taken_ports

_READY = "ready to serve client requests"
_START_SECONDS = 30.0


class EtcdMissingError(RuntimeError):
    """The etcd program is not installed; the message says how to install it."""


class EtcdStartError(RuntimeError):
    """An etcd did not start; the message has the end of its log."""


def program() -> str:
    """Return the path of the etcd program.

    Raises:
        EtcdMissingError: It is not installed.
    """
    found = shutil.which("etcd")
    if found is None:
        raise EtcdMissingError("there is no etcd program: install it (Debian: apt-get install etcd-server)")
    return found


def control(*arguments: str, endpoint: str = "") -> str:
    """Run `etcdctl` and return its output.

    Args:
        arguments: Its arguments.
        endpoint: The member to connect to.

    Raises:
        EtcdMissingError: It is not installed.
    """
    return run_tool("etcdctl", *([f"--endpoints={endpoint}"] if endpoint else []), *arguments)


def run_tool(name: str, *arguments: str) -> str:
    """Run a program that comes with etcd and return its output.

    Args:
        name: The program.
        arguments: Its arguments.

    Raises:
        EtcdMissingError: It is not installed.
    """
    if shutil.which(name) is None:
        raise EtcdMissingError(f"there is no {name} program: install it (Debian: apt-get install etcd-client)")
    environment = {**os.environ, "ETCDCTL_API": "3"}
    done = subprocess.run([name, *arguments], check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{name} {' '.join(arguments)}: {done.stderr}")
    return done.stdout


class EtcdServer:
    """An etcd process: a single server, or a member of a cluster.

    Args:
        directory: Directory for its data and its log.
        name: Its name in the cluster.
        host: The address that it listens on.
        client_port: Port for clients.
        peer_port: Port for other members.
        cluster: Value of `--initial-cluster`; "" for a single server.
        arguments: Further arguments of the program.
        wrap: A command to run the program with, such as `ip netns exec NAME`.
        scheme: "https" if the arguments enable encryption.

    Attributes:
        arguments: Further arguments, for the next start.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "default",
        host: str = "127.0.0.1",
        client_port: int,
        peer_port: int,
        cluster: str = "",
        arguments: Sequence[str] = (),
        wrap: Sequence[str] = (),
        scheme: str = "http",
    ) -> None:
        self.directory = directory
        self.name = name
        self.endpoint = f"{host}:{client_port}"
        self.peer_url = f"http://{host}:{peer_port}"
        self._cluster = cluster or f"{name}={self.peer_url}"
        self.arguments = tuple(arguments)
        self._wrap = tuple(wrap)
        self._scheme = scheme
        self._process: subprocess.Popen[bytes] | None = None
        self.directory.mkdir(parents=True, exist_ok=True)

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """Its log file."""
        return self.directory / "etcd.log"

    @property
    def pid(self) -> int:
        """Id of the process."""
        assert self._process is not None
        return self._process.pid

    def url(self, prefix: str = "", **parameters: object) -> str:
        """Return the coordinator URL of a store in this etcd."""
        return coordinator_url(self.endpoint, prefix, **parameters)

    def below(self, place: str) -> SharedEtcd:
        """Return this etcd for a user with a prefix of its own and no control over the process."""
        return SharedEtcd(self.endpoint, place)

    def launch(self) -> None:
        """Start the process, without waiting until it serves."""
        client_url = f"{self._scheme}://{self.endpoint}"
        command = [
            *self._wrap,
            program(),
            f"--name={self.name}",
            f"--data-dir={self.data}",
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={self._cluster}",
            *self.arguments,
        ]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD_")}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)

    def wait_ready(self) -> None:
        """Wait until the process serves (a member of a cluster: until that has a majority).

        Raises:
            EtcdStartError: It exited, or did not become ready in time.
        """
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while _READY not in (text := self.log.read_text(errors="replace")):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise EtcdStartError(f"etcd {self.name} did not start:\n{text[-2000:]}")
            time.sleep(0.01)

    def start(self) -> None:
        """Start the process and wait until it serves."""
        self.launch()
        self.wait_ready()

    def stop(self) -> None:
        """Shut the process down cleanly."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop the process until `resume`; its connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)
        while not self._is_stopped():  # the signal reaches its threads one by one
            time.sleep(0.001)

    def resume(self) -> None:
        """Let a paused process continue."""
        os.kill(self.pid, signal.SIGCONT)

    def wipe(self) -> None:
        """Delete the data of the ended process."""
        shutil.rmtree(self.data, ignore_errors=True)

    def snapshot(self, path: Path) -> None:
        """Save a backup of the running process's data to a file."""
        path.unlink(missing_ok=True)
        control("snapshot", "save", str(path), endpoint=self.endpoint)

    def restore(self, path: Path) -> None:
        """Replace the data of the ended process with a backup, keeping its name and addresses."""
        self.wipe()
        run_tool(
            "etcdutl" if shutil.which("etcdutl") else "etcdctl",  # restores since etcd 3.6
            *("snapshot", "restore", str(path), f"--data-dir={self.data}", f"--name={self.name}"),
            *(f"--initial-cluster={self._cluster}", f"--initial-advertise-peer-urls={self.peer_url}"),
        )

    def _is_stopped(self) -> bool:
        states = []
        for thread in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                states.append(thread.read_text().rpartition(")")[2].split()[0])
        return all(state in "TtZX" for state in states)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
            os.kill(process.pid, signal.SIGCONT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class SharedEtcd:
    """A prefix of its own in a running etcd that others use as well.

    Args:
        endpoints: `HOST:PORT,HOST:PORT`.
        place: First part of the prefix of every store.
    """

    def __init__(self, endpoints: str, place: str) -> None:
        self._endpoints = endpoints
        self.endpoint = endpoints.partition(",")[0]
        self._place = place

    def url(self, prefix: str = "", **parameters: object) -> str:
        """Return the coordinator URL of a store in this place."""
        return coordinator_url(self._endpoints, f"{self._place}/{prefix}".rstrip("/"), **parameters)

    def below(self, place: str) -> SharedEtcd:
        """Return a place within this place."""
        return SharedEtcd(self._endpoints, f"{self._place}/{place}")

    def through(self, endpoints: str) -> SharedEtcd:
        """Return the same place as reached through other endpoints, such as a proxy's."""
        return SharedEtcd(endpoints, self._place)

    def empty(self) -> None:
        """Delete everything in this place."""
        from agola_core.coordinator import DeleteRangeOp, open_coordinator  # noqa: PLC0415 - load what is used

        with contextlib.closing(open_coordinator(self.url())) as coordinator:
            coordinator.txn([], [DeleteRangeOp("", chr(sys.maxunicode))])  # with the marks of killed clients


def coordinator_url(endpoints: str, prefix: str = "", **parameters: object) -> str:
    """Return a coordinator URL."""
    query = urlencode({name: str(value) for name, value in parameters.items()})
    return f"etcd://{endpoints}/{prefix}{'?' if query else ''}{query}"


@contextmanager
def start_etcd(directory: Path, *, arguments: Sequence[str] = (), scheme: str = "http") -> Iterator[EtcdServer]:
    """Run an etcd for the length of the block.

    Args:
        directory: Directory for its data and its log; may be deleted afterwards.
        arguments: Further arguments of the program.
        scheme: "https" if the arguments enable encryption.

    Raises:
        EtcdMissingError: The program is not installed.
        EtcdStartError: It did not start.
    """

    def start() -> EtcdServer:
        client_port, peer_port = free_ports(2)
        server = EtcdServer(directory, client_port=client_port, peer_port=peer_port, arguments=arguments, scheme=scheme)
        try:
            server.start()
        except EtcdStartError:
            server.kill()
            server.wipe()
            raise
        return server

    server = retry_taken_ports(start, EtcdStartError)
    try:
        yield server
    finally:
        server.kill()
