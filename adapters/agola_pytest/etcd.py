"""Real etcd processes for tests: one server, or a cluster, on free loopback ports, with directories of their own.

Also usable outside pytest::

    with start_etcd(directory) as etcd:
        agola_core.open(storage=..., coordinator=etcd.url("my-store"), data_types=[...])
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

_READY = "ready to serve client requests"
_START_SECONDS = 30.0
_PORT_TRIES = 5


class EtcdMissingError(RuntimeError):
    """There is no etcd program; the message says how to get one."""


class EtcdStartError(RuntimeError):
    """An etcd did not start; the message has the end of its log."""


def program() -> str:
    """Return the path of the etcd program.

    Raises:
        EtcdMissingError: There is none.
    """
    found = shutil.which("etcd")
    if found is None:
        raise EtcdMissingError("there is no etcd program: install it (Debian: apt-get install etcd-server)")
    return found


def control(*arguments: str, endpoint: str = "") -> str:
    """Run `etcdctl` and return what it prints.

    Args:
        arguments: Its arguments.
        endpoint: The member that it talks to.

    Raises:
        EtcdMissingError: There is no such program.
    """
    return run_tool("etcdctl", *([f"--endpoints={endpoint}"] if endpoint else []), *arguments)


def run_tool(name: str, *arguments: str) -> str:
    """Run a program that comes with etcd and return what it prints.

    Args:
        name: The program.
        arguments: Its arguments.

    Raises:
        EtcdMissingError: There is no such program.
    """
    if shutil.which(name) is None:
        raise EtcdMissingError(f"there is no {name} program: install it (Debian: apt-get install etcd-client)")
    done = subprocess.run(
        [name, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "ETCDCTL_API": "3"},
    )
    if done.returncode:
        raise RuntimeError(f"{name} {' '.join(arguments)}: {done.stderr}")
    return done.stdout


class EtcdServer:
    """One etcd process: a server of its own, or a member of a cluster.

    Args:
        directory: Where its data and its log go.
        name: Its name in the cluster.
        host: The address it listens on.
        client_port: Where clients reach it.
        peer_port: Where the other members reach it.
        cluster: `--initial-cluster`'s value; "" for a server of its own.
        arguments: Further arguments of the program.
        wrap: A command that the program's is appended to, such as `ip netns exec NAME`.
        scheme: "https" when the arguments turn encryption on.

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
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def url(self, prefix: str = "", **parameters: object) -> str:
        """Return a coordinator URL of a store in this etcd."""
        return coordinator_url(self.endpoint, prefix, **parameters)

    def below(self, place: str) -> SharedEtcd:
        """Return this etcd for somebody who has only a place of its own, and not its process."""
        return SharedEtcd(self.endpoint, place)

    def launch(self) -> None:
        """Start the process, without waiting until it serves."""
        client_url = f"{self._scheme}://{self.endpoint}"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [
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
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={key: value for key, value in os.environ.items() if not key.startswith("ETCD_")},
            )

    def wait_ready(self) -> None:
        """Wait until the process serves (a member of a cluster: until that has a majority).

        Raises:
            EtcdStartError: It ended, or took too long.
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
        """End the process in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let the process do nothing until `resume`; its connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)
        while not self._is_stopped():  # the signal reaches its threads one by one
            time.sleep(0.001)

    def resume(self) -> None:
        """Let a paused process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def wipe(self) -> None:
        """Remove the data of the ended process."""
        shutil.rmtree(self.data, ignore_errors=True)

    def snapshot(self, path: Path) -> None:
        """Save a backup of the running process's data to a file."""
        path.unlink(missing_ok=True)
        control("snapshot", "save", str(path), endpoint=self.endpoint)

    def restore(self, path: Path) -> None:
        """Replace the data of the ended process by a backup's, under its own name and addresses."""
        self.wipe()
        run_tool(
            "etcdutl" if shutil.which("etcdutl") else "etcdctl",  # what restores since etcd 3.6
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
    """A place of its own in a running etcd that others use as well.

    Args:
        endpoints: `HOST:PORT,HOST:PORT`.
        place: What the prefix of every store begins with.
    """

    def __init__(self, endpoints: str, place: str) -> None:
        self._endpoints = endpoints
        self.endpoint = endpoints.partition(",")[0]
        self._place = place

    def url(self, prefix: str = "", **parameters: object) -> str:
        """Return a coordinator URL of a store in this place."""
        return coordinator_url(self._endpoints, f"{self._place}/{prefix}".rstrip("/"), **parameters)

    def below(self, place: str) -> SharedEtcd:
        """Return a place in this place."""
        return SharedEtcd(self._endpoints, f"{self._place}/{place}")

    def through(self, endpoints: str) -> SharedEtcd:
        """Return the same place as it is reached by another way, such as a proxy."""
        return SharedEtcd(endpoints, self._place)

    def empty(self) -> None:
        """Delete everything in this place."""
        from agola_core.coordinator import DeleteRangeOp, open_coordinator  # noqa: PLC0415 - load what is used

        with contextlib.closing(open_coordinator(self.url())) as coordinator:
            coordinator.txn([], [DeleteRangeOp("", chr(sys.maxunicode))])  # with the marks of killed clients


class EtcdCluster:
    """Several etcd processes that are one cluster.

    Args:
        members: Its members.
    """

    def __init__(self, members: Sequence[EtcdServer]) -> None:
        self.members = tuple(members)

    def url(self, prefix: str = "", **parameters: object) -> str:
        """Return a coordinator URL of a store in this cluster."""
        return coordinator_url(",".join(member.endpoint for member in self.members), prefix, **parameters)

    def start(self) -> None:
        """Start all members and wait until they serve."""
        for member in self.members:
            member.launch()
        for member in self.members:
            member.wait_ready()

    def kill(self) -> None:
        """End all members at once."""
        for member in self.members:
            member.kill()


def coordinator_url(endpoints: str, prefix: str = "", **parameters: object) -> str:
    """Return a coordinator URL."""
    query = urlencode({name: str(value) for name, value in parameters.items()})
    return f"etcd://{endpoints}/{prefix}{'?' if query else ''}{query}"


@contextmanager
def start_etcd(directory: Path, *, arguments: Sequence[str] = (), scheme: str = "http") -> Iterator[EtcdServer]:
    """Run one etcd while the block runs.

    Args:
        directory: Where its data and its log go; may be removed afterwards.
        arguments: Further arguments of the program.
        scheme: "https" when the arguments turn encryption on.

    Raises:
        EtcdMissingError: There is no etcd program.
        EtcdStartError: It did not start.
    """
    for attempt in range(1, _PORT_TRIES + 1):
        client_port, peer_port = free_ports(2)
        server = EtcdServer(directory, client_port=client_port, peer_port=peer_port, arguments=arguments, scheme=scheme)
        try:
            server.start()
            break
        except EtcdStartError as error:
            server.kill()
            if attempt == _PORT_TRIES or "address already in use" not in str(error):
                raise
            server.wipe()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def start_etcd_cluster(directory: Path, *, size: int = 3, arguments: Sequence[str] = ()) -> Iterator[EtcdCluster]:
    """Run a cluster of etcd processes on loopback ports while the block runs.

    Args:
        directory: Where their data and logs go, each below its name.
        size: How many members.
        arguments: Further arguments of the program, for each.

    Raises:
        EtcdMissingError: There is no etcd program.
        EtcdStartError: A member did not start.
    """
    for attempt in range(1, _PORT_TRIES + 1):
        ports = free_ports(2 * size)
        names = [f"m{number}" for number in range(1, size + 1)]
        peers = ",".join(f"{name}=http://127.0.0.1:{port}" for name, port in zip(names, ports[size:], strict=True))
        cluster = EtcdCluster(
            [
                EtcdServer(
                    directory / name,
                    name=name,
                    client_port=ports[index],
                    peer_port=ports[size + index],
                    cluster=peers,
                    arguments=arguments,
                )
                for index, name in enumerate(names)
            ]
        )
        try:
            cluster.start()
            break
        except EtcdStartError as error:
            cluster.kill()
            if attempt == _PORT_TRIES or "address already in use" not in str(error):
                raise
            for member in cluster.members:
                member.wipe()
    try:
        yield cluster
    finally:
        cluster.kill()


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
