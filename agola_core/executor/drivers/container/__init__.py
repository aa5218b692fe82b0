"""The container driver: a task is a few containers of a Docker-compatible engine, and its steps run in the first."""

from typing import TYPE_CHECKING

from agola_core.executor.drivers.container.engine import EngineOptions
from agola_core.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from agola_core.executor.drivers.container.driver import ContainerDriver

__getattr__ = lazy_names("agola_core.executor.drivers.container", {"driver": "ContainerDriver"})

__all__ = ["ContainerDriver", "EngineOptions"]
