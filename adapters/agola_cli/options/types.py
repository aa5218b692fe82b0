"""Types of option values: numbers, durations, times, and retention rules."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from agola_core.encoding.numerals import decimal_number, whole_number
from agola_core.runservice.model.options import RetentionRule
from agola_core.runtime.clock import MOST_SECONDS

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhdw]?)")


class Whole(click.IntRange):
    """A whole number of ASCII digits within a range; click's own takes whatever Python's `int` does."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        number = whole_number(str(value))
        if number is None:
            self.fail(f"{str(value)[:40]!r} is not a whole number such as 10", param, ctx)
        return int(super().convert(number, param, ctx))


class Decimal(click.FloatRange):
    """A number of ASCII digits, such as 1.5, within a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = decimal_number(str(value))
        if number is None:
            self.fail(f"{str(value)[:40]!r} is not a number such as 1.5", param, ctx)
        return float(super().convert(number, param, ctx))


class Duration(click.ParamType):  # type: ignore[type-arg] # no generic before click 8.4
    """Seconds, said as `90`, `90s`, `10m`, `1h`, `7d` or `4w`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds, more than none."""
        if isinstance(value, float):
            return value
        match = _DURATION.fullmatch(str(value))
        seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
        if not seconds:
            self.fail(f"{str(value)[:40]!r} is no duration such as 90s, 10m, 1h, 7d or 4w", param, ctx)
        if seconds > MOST_SECONDS:
            self.fail(f"{value!r} is longer than a hundred years", param, ctx)
        return seconds


class Retention(click.ParamType):  # type: ignore[type-arg]
    """Which runs of a group are kept, said as `GROUP=AGE`, `GROUP=COUNT` or `GROUP=AGE,COUNT`."""

    name = "retention"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> RetentionRule:
        """Return the rule."""
        if isinstance(value, RetentionRule):
            return value
        group, equals, rule = str(value).partition("=")
        if not group.startswith("/") or not equals:
            self.fail(f"{value!r} is no rule such as /=90d or /project/ID=30d,100", param, ctx)
        ages, counts = [], []
        for part in rule.split(","):
            if (count := whole_number(part)) is not None:
                counts.append(count)
            else:
                ages.append(DURATION.convert(part, param, ctx))
        if len(ages) > 1 or len(counts) > 1:
            self.fail(f"{value!r} says an age or a count twice", param, ctx)
        return RetentionRule(group, ages[0] if ages else None, counts[0] if counts else None)


class Time(click.ParamType):  # type: ignore[type-arg] # no generic before click 8.4
    """A time: ISO 8601, or an age such as 90m, 12h or 7d."""

    name = "time"

    def convert(
        self,
        value: str | datetime,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> datetime:
        """Return the time that a text says, by this machine's zone if it names none."""
        if isinstance(value, datetime):
            return value
        try:
            if value[-1:] in _UNITS and (age := whole_number(value[:-1])) is not None:
                return datetime.now(UTC) - timedelta(**{_UNITS[value[-1]]: age})
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):  # none, or one that goes back beyond all time
            self.fail(f"{value[:80]!r} is neither a time such as 2026-01-31T12:00 nor an age such as 7d", param, ctx)


class Regexp(click.ParamType):  # type: ignore[type-arg]
    """A regular expression."""

    name = "regexp"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> re.Pattern[str]:
        """Return the compiled expression."""
        try:
            return re.compile(value)
        except re.error as error:
            self.fail(f"{value!r} is no regular expression: {error}", param, ctx)


REGEXP = Regexp()
TIME = Time()
DURATION = Duration()
RETENTION = Retention()
