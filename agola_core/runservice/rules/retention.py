"""Decides which archived runs have expired, by age or by number. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

from agola_core.runservice.model.options import RetentionRule

Ended = tuple[str, str, datetime | None]
"""An archived run: its id, its group, its end."""


def rule_for(rules: Iterable[RetentionRule], group: str) -> RetentionRule | None:
    """Return the rule of the nearest group at or above a group; None if there is none."""
    path = f"{group}/"
    found = [rule for rule in rules if path.startswith(rule.group.rstrip("/") + "/")]
    return max(found, key=lambda rule: len(rule.group.rstrip("/")), default=None)


def expired(rules: tuple[RetentionRule, ...], find_ended: Callable[[str], list[Ended]], now: datetime) -> Iterator[str]:
    """Yield the ids of the runs that have expired.

    Args:
        rules: The rules.
        find_ended: Returns the archived runs of a group and of groups below it, newest first.
        now: The time.
    """
    for rule in rules:
        seen: Counter[str] = Counter()
        for run_id, group, end in find_ended(rule.group):
            if rule_for(rules, group) is not rule:
                continue
            seen[group] += 1
            too_many = rule.max_count is not None and seen[group] > rule.max_count
            too_old = rule.max_age is not None and end is not None and now - end > timedelta(seconds=rule.max_age)
            if too_many or too_old:
                yield run_id
