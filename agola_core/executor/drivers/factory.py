"""Creates drivers by name."""

from __future__ import annotations

from agola_core.errors import ConfigError
from agola_core.executor.drivers.engine import EngineOptions
from agola_core.executor.drivers.host import HostDriver, Isolation
from agola_core.executor.drivers.port import Driver

DRIVERS = ("host", "container")


def make_driver(name: str, *, isolation: Isolation = Isolation.NONE, engine: EngineOptions | None = None) -> Driver:
    """Return a driver.

    Args:
        name: `host` or `container`.
        isolation: What host steps run in.
        engine: How a container engine is used; its network `host` is what an isolated host step asks for.

    Raises:
        ConfigError: There is none of that name, or it cannot work here.
        UnavailableError: The container engine cannot be reached.
    """
    if name == "host":
        network = engine.network if engine is not None else ""
        if network not in {"", "none", "host"}:
            raise ConfigError(f"the host driver has no network {network!r}: isolated steps have 'none', or 'host'")
        if network == "none" and isolation is Isolation.NONE:
            raise ConfigError("only isolated steps can be kept from the network")
        return HostDriver(isolation=isolation, network=network == "host")
    if name == "container":
        from agola_core.executor.drivers.container import ContainerDriver  # noqa: PLC0415 - only where it is used

        return ContainerDriver(engine)
    raise ConfigError(f"unknown driver {name!r}; known are {', '.join(DRIVERS)}")
