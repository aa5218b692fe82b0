"""JSON documents of the interface for which the core has no records; routes write them and the client reads them."""

from __future__ import annotations

import msgspec

from agola_core.datamanager import LastVerify, Status
from agola_core.runservice.archive.store_history import LastExport
from agola_core.runservice.model.types import Run, RunConfig

DEFAULT_LIMIT, MAX_LIMIT = 25, 40
"""How many runs a page of a list has when the request does not say, and at most."""


class Source(msgspec.Struct, frozen=True):
    """An uploaded source archive."""

    id: str


class Health(msgspec.Struct, frozen=True):
    """Whether the process is alive, or ready."""

    status: str


class Version(msgspec.Struct, frozen=True):
    """The version of the service."""

    name: str
    version: str
    api: str


class RunResponse(msgspec.Struct, frozen=True):
    """A run with its configuration."""

    run: Run
    run_config: RunConfig
    change_groups_update_tokens: str = ""


class GetRunsResponse(msgspec.Struct, frozen=True):
    """A page of runs."""

    runs: list[Run]
    change_groups_update_tokens: str = ""


class Checkpointed(msgspec.Struct, frozen=True):
    """The outcome of a requested checkpoint.

    Attributes:
        checkpointed: The newest WAL that it contains.
        number: Its manifest's number.
    """

    checkpointed: str
    number: int


class ServiceStatus(Status, frozen=True):
    """The state of a service's store, with what storage keeps of it for people.

    Attributes:
        storage_answers: Whether storage could be read: if not, the others are as they were read before.
        last_export: The last export that was whole; None if none is known.
        last_verify: The last verify; None if none is known.
    """

    storage_answers: bool = True
    last_export: LastExport | None = None
    last_verify: LastVerify | None = None
