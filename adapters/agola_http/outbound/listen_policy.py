"""The policy for executors' listen URLs, which keeps the service from being made to call other hosts. Pure.

An executor names its URL itself, and the run service then calls it. So only HTTP URLs without credentials, query or
fragment are taken, every address that the name resolves to must be of an allowed network, and the caller connects
to the address that was checked (never to the name once more), follows no redirect and sets a deadline.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec

from agola_core.errors import BadRequestError, ForbiddenError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOCAL_NETWORKS = ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
"""This machine and private networks: where executors may listen unless it is said otherwise."""

_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "169.254.0.0/16",  # link-local: the metadata services of clouds
        "100.100.100.200/32",  # another cloud's
        "192.0.0.192/32",  # another cloud's
        "fd00:ec2::254/128",  # another cloud's, inside a private network
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "fe80::/10",
        "ff00::/8",
    )
)
_PORTS = {"http": 80, "https": 443}


class Target(msgspec.Struct, frozen=True):
    """A parsed listen URL.

    Attributes:
        scheme: `http` or `https`.
        host: A name or an address.
        port: The port.
        path: The prefix of the interface's paths: "" or a path without a slash at its end.
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    def url_at(self, address: Address) -> str:
        """Return the URL with an address instead of the name."""
        shown = f"[{address}]" if address.version == 6 else str(address)
        return f"{self.scheme}://{shown}:{self.port}{self.path}"


class ListenPolicy:
    """Where executors may listen.

    Args:
        networks: The allowed networks; those of cloud metadata, multicast and the like stay refused.
        schemes: The allowed schemes.

    Raises:
        BadRequestError: A network is malformed.
    """

    def __init__(self, networks: Iterable[str] = LOCAL_NETWORKS, schemes: Iterable[str] = ("http", "https")) -> None:
        try:
            self._networks: list[Network] = [ipaddress.ip_network(network) for network in networks]
        except ValueError as error:
            raise BadRequestError(f"not a network: {error}") from error
        self._schemes = frozenset(schemes)

    def parse(self, url: str) -> Target:
        """Parse a listen URL; checks it at once if it contains an address.

        Raises:
            BadRequestError: It is not a valid URL of an executor.
            ForbiddenError: Its scheme or its address is not allowed.
        """
        shown = repr(url[:200])
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise BadRequestError(f"not a listen URL: {shown}") from error
        if not parts.scheme or not parts.hostname or port == 0 or not url.isascii() or not url.isprintable():
            raise BadRequestError(f"not a listen URL: {shown}")
        if "@" in parts.netloc or parts.query or parts.fragment or "\\" in url or " " in url or "%" in parts.netloc:
            raise BadRequestError(f"a listen URL has only a scheme, a host, a port and a path: {shown}")
        if parts.scheme not in self._schemes:
            raise ForbiddenError(f"the scheme of the listen URL {shown} is not allowed")
        target = Target(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], parts.path.rstrip("/"))
        try:
            address = ipaddress.ip_address(target.host)
        except ValueError:
            if _looks_numeric(target.host):  # 0x7f.1 and 2130706433 are addresses to some resolvers
                raise BadRequestError(f"not a listen URL: {shown}") from None
            return target
        self.pick(target, [address])
        return target

    def check(self, url: str, *, same_machine: bool) -> None:
        """Check a URL that an executor reports.

        Args:
            url: The URL.
            same_machine: Whether the executor reports from this machine. Only then may it listen on loopback; what
                another one names there is not itself.

        Raises:
            BadRequestError: It is not a valid URL of an executor.
            ForbiddenError: Its scheme or its address is not allowed.
        """
        target = self.parse(url)
        if _is_loopback(target.host):
            if not same_machine:
                raise ForbiddenError(f"executors on other machines do not listen on {target.host!r}")
            if target.path:
                raise BadRequestError(f"a listen URL on this machine has no path: {url[:200]!r}")

    def pick(self, target: Target, addresses: Iterable[Address]) -> Address:
        """Return the address to connect to.

        Args:
            target: The executor's listen URL.
            addresses: The addresses that its name resolves to now.

        Raises:
            ForbiddenError: One of them is not allowed, or there is none.
        """
        found = list(addresses)
        if not _is_loopback(target.host) and any(_embedded(address).is_loopback for address in found):
            raise ForbiddenError(f"the executor's host {target.host!r} is a name of this machine: say localhost")
        if not found or not all(self._allows(address) for address in found):
            raise ForbiddenError(f"executors must not listen on {target.host!r}")
        return found[0]

    def _allows(self, address: Address) -> bool:
        meant = _embedded(address)
        return not any(_within(meant, network) for network in _NEVER) and any(
            _within(meant, network) for network in self._networks
        )


def _embedded(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, else the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address
    return address


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return _embedded(ipaddress.ip_address(host)).is_loopback
    except ValueError:
        return False


def _within(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network


def _looks_numeric(host: str) -> bool:
    last = host.rstrip(".").rpartition(".")[2]
    return last.isdigit() or last.lower().startswith("0x")


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
