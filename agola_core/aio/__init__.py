"""The library for asyncio and trio: the same names, each call in a worker thread (extra `aio`).

Imports the datamanager and the event store, which stay synchronous; nothing of their logic is written twice.
"""

from agola_core.errors import ConfigError

try:
    import anyio as _anyio  # noqa: F401 - before the modules that need it
except ImportError as error:
    raise ConfigError("agola_core.aio needs the extra `aio`: pip install 'agola-core[aio]'") from error

from agola_core.aio.events import AsyncConsumer, AsyncEvents, AsyncEventStore
from agola_core.aio.iteration import AsyncItems
from agola_core.aio.opening import open, open_events  # noqa: A004 - used as agola_core.aio.open
from agola_core.aio.store import AsyncDataManager

__all__ = ["AsyncConsumer", "AsyncDataManager", "AsyncEventStore", "AsyncEvents", "AsyncItems", "open", "open_events"]
