"""Real etcd clusters: several processes on free loopback ports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agola_pytest.servers.etcd import EtcdServer, EtcdStartError, coordinator_url
from agola_pytest.servers.ports import free_ports, retry_taken_ports


class EtcdCluster:
    """Several etcd processes that form a cluster.

    Args:
        members: Its members.
    """

    def __init__(self, members: Sequence[EtcdServer]) -> None:
        self.members = tuple(members)

    def url(self, prefix: str = "", **parameters: object) -> str:
        """Return the coordinator URL of a store in this cluster."""
        return coordinator_url(",".join(member.endpoint for member in self.members), prefix, **parameters)

    def start(self) -> None:
        """Start all members and wait until they serve."""
        for member in self.members:
            member.launch()
        for member in self.members:
            member.wait_ready()

    def kill(self) -> None:
        """Kill all members."""
        for member in self.members:
            member.kill()


@contextmanager
def start_etcd_cluster(directory: Path, *, size: int = 3, arguments: Sequence[str] = ()) -> Iterator[EtcdCluster]:
    """Run an etcd cluster on loopback ports for the length of the block.

    Args:
        directory: Directory for data and logs, with a subdirectory for each member.
        size: Number of members.
        arguments: Further arguments of each member's program.

    Raises:
        EtcdMissingError: The etcd program is not installed.
        EtcdStartError: A member did not start.
    """

    def start() -> EtcdCluster:
        ports = free_ports(2 * size)
        names = [f"m{number}" for number in range(1, size + 1)]
        cluster = ",".join(f"{name}=http://127.0.0.1:{port}" for name, port in zip(names, ports[size:], strict=True))
        started = EtcdCluster(
            [
                EtcdServer(
                    directory / name, name=name, client_port=port, peer_port=peer, cluster=cluster, arguments=arguments
                )
                for name, port, peer in zip(names, ports[:size], ports[size:], strict=True)
            ]
        )
        try:
            started.start()
        except EtcdStartError:
            started.kill()
            for member in started.members:
                member.wipe()
            raise
        return started

    cluster = retry_taken_ports(start, EtcdStartError)
    try:
        yield cluster
    finally:
        cluster.kill()
