"""Creates drivers by name."""

from __future__ import annotations

from agola_core.errors import ConfigError
from agola_core.executor.drivers.container import EngineOptions
from agola_core.executor.drivers.host import HostDriver, Isolation
from agola_core.executor.drivers.port import Driver

DRIVERS = ("host", "container")


def make_driver(name: str, *, isolation: Isolation = Isolation.NONE, engine: EngineOptions | None = None) -> Driver:
    """Create a driver.

    Args:
        name: `host` or `container`.
        isolation: The isolation of host steps.
        engine: The container engine's options; the network `host` applies to isolated host steps, too.

    Raises:
        ConfigError: The name is unknown, or the driver cannot work here.
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
