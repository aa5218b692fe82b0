"""Requests of clients to the run service, and its answers, as Agola's JSON."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Final

import msgspec

from agola_core.errors import BadRequestError
from agola_core.runservice.model.types import Run, RunConfig, RunConfigTask, RunPhase, RunResult


class RunCreateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A new run, or with `run_id` the restart of one.

    Attributes:
        run_config_tasks: The tasks by id.
        name: What people see.
        group: `/TYPE/ID/SUBTYPE/NAME...`.
        setup_errors: Why the run cannot even start.
        static_environment: Overrides the tasks' own; kept by restarts.
        cache_group: Runs with the same one share caches; "" for the second component of the group.
        run_id: Restart this run.
        from_start: Restart every task instead of those that did not succeed.
        environment: Overrides all others; replaced by a restart's.
        annotations: For people and tools.
        secrets: Values to be hidden in environments, commands and logs. Those of a restarted run are kept. An addition.
        change_groups_update_tokens: Refuses the creation when a group has changed. Misspelt on the wire.
    """

    run_config_tasks: dict[str, RunConfigTask] | None = None
    name: str = ""
    group: str = ""
    setup_errors: list[str] | None = None
    static_environment: dict[str, str] | None = None
    cache_group: str = ""
    run_id: str = ""
    from_start: bool = False
    reset_tasks: list[str] | None = None
    environment: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    secrets: list[str] | msgspec.UnsetType | None = msgspec.UNSET  # Agola's own requests are written without it
    change_groups_update_tokens: str = msgspec.field(name="changeup_update_tokens", default="")


class LogPart(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines of a log are read, and how they are shown.

    Attributes:
        timestamps: Put its time and a space before each line: RFC 3339 in UTC with milliseconds, or "-" and as many
            spaces where it is not known. A line that goes on comes when it has ended, or has 16 KiB.
        since: Only the lines that were written at this time or later, and those whose time is not known.
        tail: Only the last ones, so many.
        offset: Leave out this many bytes at the beginning, which end with a line.
    """

    timestamps: bool = False
    since: datetime | None = None
    tail: int | None = None
    offset: int = 0


WHOLE_LOG: Final = LogPart()


class RunBundle(msgspec.Struct, frozen=True):
    """A run and the configuration that it was created from."""

    run: Run
    run_config: RunConfig


class RunQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs to list.

    Attributes:
        phases: Only these; none for all.
        results: Only these; none for all.
        groups: Only runs of these groups and of those below them; none for all.
        events: Only runs that one of these made begin (see `run_event`); none for all.
        start: Only runs after this id, in the order of the list.
        limit: The most runs to return.
        ascending: Oldest first, instead of newest first.
        last_run: Only the newest run of each group that meets the other conditions.
    """

    phases: tuple[RunPhase, ...] = ()
    results: tuple[RunResult, ...] = ()
    groups: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    start: str = ""
    limit: int = 25
    ascending: bool = False
    last_run: bool = False


class RunActionType(enum.StrEnum):
    """Actions on runs."""

    CHANGE_PHASE = "changephase"
    STOP = "stop"


class RunActionsRequest(msgspec.Struct, frozen=True):
    """An action on a run. Agola's client sends an empty phase where there is none."""

    action_type: RunActionType
    phase: str = ""
    change_groups_update_tokens: str = ""

    @property
    def new_phase(self) -> RunPhase:
        """The requested phase.

        Raises:
            BadRequestError: There is no such phase.
        """
        try:
            return RunPhase(self.phase)
        except ValueError as error:
            raise BadRequestError(f"no such phase: {self.phase[:40]!r}") from error


class RunTaskActionType(enum.StrEnum):
    """Actions on the tasks of runs."""

    SET_ANNOTATIONS = "setannotations"
    APPROVE = "approve"


class RunTaskActionsRequest(msgspec.Struct, frozen=True):
    """An action on a run's task."""

    action_type: RunTaskActionType
    annotations: dict[str, str] | None = None
    change_groups_update_tokens: str = ""
