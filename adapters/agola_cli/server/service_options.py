"""The options of `serve` that configure its run service, bundled into one value."""

from __future__ import annotations

from typing import Any

import click

from agola_cli.options.common import bundled
from agola_cli.options.types import DURATION, RETENTION, Whole
from agola_core.errors import BadRequestError
from agola_core.runservice.model.options import RetentionRule, ServiceOptions


def _service(
    retain: tuple[RetentionRule, ...],
    external_scheduler: bool,
    max_log_bytes_fetched: int,
    retention_interval: float,
    upkeep_interval: float | None,
    **given: Any,
) -> ServiceOptions:
    groups = [rule.group.rstrip("/") for rule in retain]
    for group in groups:
        if groups.count(group) > 1:
            raise BadRequestError(f"--retain says twice what is kept of {group or '/'}")
    return ServiceOptions(
        retention=retain,
        retention_interval=retention_interval if upkeep_interval is None else upkeep_interval,
        start_queued=not external_scheduler,
        max_log_bytes=max_log_bytes_fetched,
        **given,
    )


service_options = bundled(
    "service",
    _service,
    click.option(
        "--retain",
        type=RETENTION,
        multiple=True,
        metavar="GROUP=AGE,COUNT",
        help="How long ended runs of each group below GROUP are kept, and how many: /=90d, /project/ID=30d,100. "
        "The rule of the deepest group counts; without a rule all are kept. Repeatable.",
    ),
    click.option(
        "--cache-expiry", type=DURATION, default="7d", show_default=True, help="The age at which caches are deleted."
    ),
    click.option(
        "--retention-interval",
        type=DURATION,
        default="1h",
        show_default=True,
        help="The time between deletions of expired runs and caches.",
    ),
    click.option("--upkeep-interval", type=DURATION, hidden=True, help="The former name of --retention-interval."),
    click.option(
        "--executor-ttl",
        type=DURATION,
        default="60s",
        show_default=True,
        help="The time without a heartbeat after which an executor counts as lost, and its tasks fail.",
    ),
    click.option(
        "--fetch-patience",
        type=DURATION,
        default="10m",
        show_default=True,
        help="How long to wait for a lost executor before its logs count as lost.",
    ),
    click.option(
        "--max-fetched-log-bytes",
        "max_log_bytes_fetched",
        type=Whole(1),
        default=2 << 30,
        show_default=True,
        help="The largest log fetched from an executor, in bytes; a larger one counts as lost.",
    ),
    click.option(
        "--max-fetched-archive-bytes",
        "max_archive_bytes",
        type=Whole(1),
        default=64 << 30,
        show_default=True,
        help="The largest workspace archive fetched from an executor, likewise.",
    ),
    click.option("--workers", type=Whole(1), default=4, show_default=True, help="Threads that advance runs."),
    click.option(
        "--fetchers",
        type=Whole(1),
        default=8,
        show_default=True,
        help="Logs and archives fetched at the same time.",
    ),
    click.option(
        "--keep-events",
        type=Whole(1),
        default=10_000,
        show_default=True,
        help="Run events kept, for streams that resume.",
    ),
    click.option("--external-scheduler", is_flag=True, help="Leave queued runs to Agola's scheduler."),
)
