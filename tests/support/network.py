"""A cluster of etcd processes whose ways to each other, and to clients, a test can cut, one direction at a time.

Each member lives in a network namespace of its own, where the machine allows that; elsewhere on loopback ports,
and a member that would be cut off is paused instead.
"""

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agola_pytest.servers.etcd import EtcdServer
from agola_pytest.servers.etcd_cluster import EtcdCluster, start_etcd_cluster

CLIENTS = -1
"""Stands for the clients where a member's number is asked for."""


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


class CuttableCluster(EtcdCluster):
    """A cluster whose connections can be cut.

    Args:
        members: The members.
        namespaces: The network namespace of each; empty for loopback.
        addresses: The address of each, then the clients'.
    """

    def __init__(self, members: Sequence[EtcdServer], namespaces: Sequence[str] = (), addresses: Sequence[str] = ()):
        super().__init__(members)
        self.namespaces = namespaces
        self._addresses = addresses
        self._paused: set[int] = set()

    def cut(self, source: int, target: int) -> None:
        """Drop what a member (or the clients) sends to a member; on loopback, pause the source."""
        if self.namespaces:
            namespace, address = self.namespaces[target], self._addresses[source]
            run("ip", "netns", "exec", namespace, "iptables", "-A", "INPUT", "-s", address, "-j", "DROP")
        elif source != CLIENTS and source not in self._paused:
            self._paused.add(source)
            self.members[source].pause()

    def isolate(self, member: int, *, clients: bool = False) -> None:
        """Cut a member off from the others, and from the clients."""
        for other in range(len(self.members)):
            if other != member:
                self.cut(member, other)
                if self.namespaces:
                    self.cut(other, member)
        if clients and self.namespaces:
            self.cut(CLIENTS, member)

    def heal(self) -> None:
        """Let everything through again."""
        for namespace in self.namespaces:
            run("ip", "netns", "exec", namespace, "iptables", "-F", "INPUT")
        for member in self._paused:
            self.members[member].resume()
        self._paused.clear()


@contextmanager
def start_cuttable_cluster(
    directory: Path, *, size: int = 3, arguments: Sequence[str] = ()
) -> Iterator[CuttableCluster]:
    """Run a cluster while the block runs.

    Args:
        directory: Where their data and logs go.
        size: How many members.
        arguments: Further arguments of each.
    """
    with contextlib.ExitStack() as stack:
        try:
            names, addresses = _namespaces(stack, size) if os.geteuid() == 0 else ((), ())
        except (OSError, subprocess.CalledProcessError):
            stack.close()
            names, addresses = (), ()
        if not names:
            cluster = stack.enter_context(start_etcd_cluster(directory, size=size, arguments=arguments))
            yield CuttableCluster(cluster.members)
            return
        peers = ",".join(f"m{number + 1}=http://{addresses[number]}:2380" for number in range(size))
        members = [
            EtcdServer(
                directory / f"m{number + 1}",
                name=f"m{number + 1}",
                host=addresses[number],
                client_port=2379,
                peer_port=2380,
                cluster=peers,
                arguments=arguments,
                wrap=("ip", "netns", "exec", names[number]),
            )
            for number in range(size)
        ]
        cluster = CuttableCluster(members, names, addresses)
        stack.callback(cluster.kill)
        cluster.start()
        yield cluster


def _namespaces(stack: contextlib.ExitStack, size: int) -> tuple[list[str], list[str]]:
    """Make namespaces on a bridge of their own, and let the stack remove them."""
    mark = secrets.token_hex(3)
    bridge, net = f"agb{mark}", f"10.{100 + secrets.randbelow(100)}.{secrets.randbelow(250)}"
    addresses = [*(f"{net}.{number + 1}" for number in range(size)), f"{net}.254"]
    run("ip", "link", "add", bridge, "type", "bridge")
    stack.callback(subprocess.run, ["ip", "link", "del", bridge], check=False, capture_output=True)
    run("ip", "addr", "add", f"{addresses[-1]}/24", "dev", bridge)
    run("ip", "link", "set", bridge, "up")
    names = []
    for number in range(size):
        name, outside, inside = f"ag{mark}{number}", f"ago{mark}{number}", f"agi{mark}{number}"
        run("ip", "netns", "add", name)
        stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False, capture_output=True)
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside)
        run("ip", "link", "set", inside, "netns", name)
        run("ip", "link", "set", outside, "master", bridge)
        run("ip", "link", "set", outside, "up")
        for command in (
            ["ip", "addr", "add", f"{addresses[number]}/24", "dev", inside],
            ["ip", "link", "set", inside, "up"],
            ["ip", "link", "set", "lo", "up"],
            ["iptables", "-F", "INPUT"],
        ):
            run("ip", "netns", "exec", name, *command)
        names.append(name)
    return names, addresses
