"""The host driver: a task's pod is a private directory, and its commands are processes of this machine."""

from agola_core.executor.drivers.host.bubblewrap import Isolation
from agola_core.executor.drivers.host.driver import HostDriver
from agola_core.executor.drivers.host.pod import script_file

__all__ = ["HostDriver", "Isolation", "script_file"]
