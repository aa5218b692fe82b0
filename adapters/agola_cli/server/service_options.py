"""The options of a run service that `serve` runs; its command takes them as one `service`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from agola_cli.options.types import DURATION, RETENTION
from agola_core.errors import BadRequestError
from agola_core.runservice.model.options import RetentionRule, ServiceOptions

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--retain",
        type=RETENTION,
        multiple=True,
        metavar="GROUP=AGE,COUNT",
        help="How long, and how many, ended runs of each group below GROUP are kept: /=90d, /project/ID=30d,100. "
        "The deepest group's rule counts; without one all are kept. Repeatable.",
    ),
    click.option("--cache-expiry", type=DURATION, default="7d", show_default=True, help="The age that caches reach."),
    click.option(
        "--upkeep-interval",
        type=DURATION,
        default="1h",
        show_default=True,
        help="Between deletions of old runs, caches.",
    ),
    click.option(
        "--executor-ttl",
        type=DURATION,
        default="60s",
        show_default=True,
        help="The silence after which an executor counts as lost, and its tasks fail.",
    ),
    click.option(
        "--fetch-patience",
        type=DURATION,
        default="10m",
        show_default=True,
        help="How long a lost executor is waited for before the logs that it has count as lost.",
    ),
    click.option(
        "--max-fetched-log-bytes",
        "max_log_bytes_fetched",
        type=click.IntRange(1),
        default=2 << 30,
        show_default=True,
        help="The largest log that is taken from an executor; a larger one counts as lost.",
    ),
    click.option(
        "--max-fetched-archive-bytes",
        "max_archive_bytes",
        type=click.IntRange(1),
        default=64 << 30,
        show_default=True,
        help="The largest workspace archive, likewise.",
    ),
    click.option("--workers", type=click.IntRange(1), default=4, show_default=True, help="Threads that advance runs."),
    click.option(
        "--fetchers", type=click.IntRange(1), default=8, show_default=True, help="Logs and archives fetched at once."
    ),
    click.option(
        "--keep-events", type=click.IntRange(1), default=10_000, show_default=True, help="Run events to go on from."
    ),
    click.option("--external-scheduler", is_flag=True, help="Leave queued runs to Agola's scheduler."),
)
_NAMES = (
    "retain", "cache_expiry", "upkeep_interval", "executor_ttl", "fetch_patience", "workers", "fetchers", "keep_events",
    "external_scheduler", "max_log_bytes_fetched", "max_archive_bytes",
)  # fmt: skip


def service_options(function: F) -> F:
    """Add the options; the command takes a `service`."""

    def with_service(**arguments: Any) -> Any:
        given = {name: arguments.pop(name) for name in _NAMES}
        rules: tuple[RetentionRule, ...] = given.pop("retain")
        groups = [rule.group.rstrip("/") for rule in rules]
        for group in groups:
            if groups.count(group) > 1:
                raise BadRequestError(f"--retain says twice what is kept of {group or '/'}")
        start_queued = not given.pop("external_scheduler")
        given["max_log_bytes"] = given.pop("max_log_bytes_fetched")  # one option of that name is the executor's
        return function(service=ServiceOptions(retention=rules, start_queued=start_queued, **given), **arguments)

    wrapped: Any = with_service
    wrapped.__doc__, wrapped.__name__ = function.__doc__, function.__name__
    wrapped.__click_params__ = getattr(function, "__click_params__", [])
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    decorated: F = wrapped
    return decorated
