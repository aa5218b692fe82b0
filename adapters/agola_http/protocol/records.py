"""JSON documents of the interface for which the core has no records; routes write them and the client reads them."""

from __future__ import annotations

import msgspec

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
