"""Options of the run service."""

from __future__ import annotations

import msgspec

from agola_core.errors import BadRequestError
from agola_core.runtime.clock import is_duration


class RetentionRule(msgspec.Struct, frozen=True):
    """Which archived runs of a group, and of groups below it, are kept. The rule of the deepest group applies.

    Attributes:
        group: Such as `/project/ID`; `/` for every group without a rule of its own.
        max_age: Seconds after its end at which a run is deleted; None for never.
        max_count: How many runs of each full group are kept, the newest; None for all.
    """

    group: str
    max_age: float | None = None
    max_count: int | None = None

    def __post_init__(self) -> None:
        """Refuse an age that is none."""
        if self.max_age is not None:
            _check_seconds("max_age", self.max_age)


class ServiceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a run service; defaults are Agola's where it has them.

    Attributes:
        workers: Threads that advance runs.
        fetchers: How many logs and archives are fetched at a time; fewer than half of them from one executor.
        start_queued: Whether queued runs start automatically, one of each group at a time; otherwise an external
            scheduler starts them, such as Agola's.
        executor_ttl: Seconds after its last heartbeat at which an executor counts as lost, and its tasks fail; it may
            be a twelfth of it more.
        fetch_patience: Seconds after which the logs and archives on a lost executor count as lost.
        max_log_bytes: The largest log fetched from an executor; a larger one counts as lost.
        max_archive_bytes: The largest workspace archive, likewise.
        sweep_interval: Seconds between sweeps, which repair what missed events left.
        keep_events: How many run events are kept, for streams that resume.
        keep_groups: How many change groups are kept; when the oldest go, older tokens are refused.
        cache_expiry: Seconds after its writing at which a cache is deleted.
        retention: Which archived runs are kept; none for all.
        retention_interval: Seconds between deletions of expired runs and caches.
    """

    workers: int = 4
    fetchers: int = 8
    start_queued: bool = True
    executor_ttl: float = 60.0
    fetch_patience: float = 600.0
    max_log_bytes: int = 2 << 30
    max_archive_bytes: int = 64 << 30
    sweep_interval: float = 5.0
    keep_events: int = 10_000
    keep_groups: int = 10_000
    cache_expiry: float = 7 * 24 * 3600.0
    retention: tuple[RetentionRule, ...] = ()
    retention_interval: float = 3600.0

    def __post_init__(self) -> None:
        """Refuse times that are none."""
        for name in ("executor_ttl", "fetch_patience", "sweep_interval", "cache_expiry", "retention_interval"):
            _check_seconds(name, getattr(self, name))


def _check_seconds(name: str, value: float) -> None:
    if not is_duration(value) or value < 0:
        raise BadRequestError(f"option {name}: expected seconds, a hundred years at most, not {value!r}"[:200])
