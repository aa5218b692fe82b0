"""Event-sourced storage on SQLite, etcd and object storage, and the CI run service that stands on it.

`open` a store, record changes with `write_wal`, read them back; the README has a first example.
"""

from typing import TYPE_CHECKING

from agola_core.__about__ import __version__
from agola_core.address import StoreAddress
from agola_core.errors import (
    AccessDeniedError,
    AgolaError,
    APIError,
    AuthenticationError,
    BadRequestError,
    ClosedError,
    CompactedError,
    ConfigError,
    ConflictError,
    ContentionError,
    CorruptionError,
    DeadlineError,
    FencedError,
    ForbiddenError,
    FormatError,
    InternalError,
    MaintenanceError,
    NoLeaderError,
    NotFoundError,
    OutOfSpaceError,
    RecoveryError,
    TokenExpiredError,
    UnauthorizedError,
    UnavailableError,
    UnknownOutcomeError,
)
from agola_core.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from agola_core.datamanager import (
        ChangeGroupsToken,
        DataManager,
        Delete,
        Durability,
        Entry,
        Event,
        ExportFormat,
        NewWal,
        Options,
        PastStore,
        Put,
        WalStatus,
    )
    from agola_core.embedded import (
        open,  # noqa: A004 - the public name, used as agola_core.open
        repair,
        verify,
    )
    from agola_core.events import open_events
    from agola_core.objectstorage import open_storage
    from agola_core.sequence import Sequence

__getattr__ = lazy_names(
    "agola_core",
    {
        "datamanager": "ChangeGroupsToken DataManager Delete Durability Entry Event ExportFormat NewWal Options "
        "PastStore Put WalStatus",
        "embedded": "open repair verify",
        "events": "open_events",
        "objectstorage": "open_storage",
        "sequence": "Sequence",
    },
)

__all__ = [
    "APIError",
    "AccessDeniedError",
    "AgolaError",
    "AuthenticationError",
    "BadRequestError",
    "ChangeGroupsToken",
    "ClosedError",
    "CompactedError",
    "ConfigError",
    "ConflictError",
    "ContentionError",
    "CorruptionError",
    "DataManager",
    "DeadlineError",
    "Delete",
    "Durability",
    "Entry",
    "Event",
    "ExportFormat",
    "FencedError",
    "ForbiddenError",
    "FormatError",
    "InternalError",
    "MaintenanceError",
    "NewWal",
    "NoLeaderError",
    "NotFoundError",
    "Options",
    "OutOfSpaceError",
    "PastStore",
    "Put",
    "RecoveryError",
    "Sequence",
    "StoreAddress",
    "TokenExpiredError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownOutcomeError",
    "WalStatus",
    "__version__",
    "open",
    "open_events",
    "open_storage",
    "repair",
    "verify",
]


def __dir__() -> list[str]:
    """Return the public names, also those that were not used yet."""
    return __all__
