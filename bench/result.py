"""One line of the table: what was measured in every turn, beside its reference, and whether the goal is held."""

from __future__ import annotations

import enum
import statistics
from collections.abc import Sequence

import msgspec


class Of(enum.StrEnum):
    """What a goal is for."""

    RATIO = "ratio"
    OURS = "ours"


class Line(msgspec.Struct, frozen=True):
    """A work, measured in turns with its reference.

    Attributes:
        ours: The figure of every turn.
        reference: The reference's, in the same order; or one that serves all turns.
        goal: What the ratio, or our figure, must reach in its median and in its spread.
        at_most: Whether the goal is an upper bound.
        processor: Our processor time of one operation in every turn, in microseconds; empty when it says nothing.
        reference_processor: The reference's.
    """

    name: str
    ours: list[float]
    reference: list[float]
    goal: float
    unit: str = "per second"
    of: Of = Of.RATIO
    at_most: bool = False
    processor: list[float] = []
    reference_processor: list[float] = []

    @property
    def figures(self) -> list[float]:
        """What the goal is compared with, of every turn."""
        if self.of is Of.OURS:
            return self.ours
        if len(self.reference) == len(self.ours):
            return [ours / reference for ours, reference in zip(self.ours, self.reference, strict=True)]
        return [ours / statistics.median(self.reference) for ours in self.ours]

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles of the turns' figures: half of the turns lie between them."""
        if len(self.figures) == 1:
            return self.figures[0], self.figures[0]
        low, _, high = statistics.quantiles(self.figures, n=4, method="inclusive")
        return low, high

    @property
    def held(self) -> bool:
        """Whether the whole spread reaches the goal."""
        low, high = self.spread
        return high <= self.goal if self.at_most else low >= self.goal

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table (see `HEADINGS`)."""
        low, high = self.spread
        of_ours = self.of is Of.OURS
        goal = f"{'<=' if self.at_most else '>='} {self.goal:g}"
        return (
            self.name,
            number(statistics.median(self.ours)),
            number(statistics.median(self.reference)),
            self.unit,
            number(statistics.median(self.ours) / statistics.median(self.reference))
            if of_ours
            else number(statistics.median(self.figures)),
            f"{number(low)} to {number(high)}",
            str(len(self.ours)),
            " / ".join(
                number(statistics.median(values)) for values in (self.processor, self.reference_processor) if values
            ),
            f"{goal} {self.unit}" if of_ours else goal,
            "held" if self.held else "missed",
        )


HEADINGS = ("name", "ours", "reference", "unit", "ratio", "spread", "turns", "processor us", "goal", "held")


def ratio(
    name: str,
    ours: Sequence[float] | float,
    reference: Sequence[float] | float,
    goal: float,
    unit: str = "per second",
    *,
    at_most: bool = False,
) -> Line:
    """Return a line whose goal is for the ratio."""
    return Line(name, _values(ours), _values(reference), goal, unit, at_most=at_most)


def limit(name: str, ours: Sequence[float] | float, reference: Sequence[float] | float, most: float, unit: str) -> Line:
    """Return a line whose goal is an upper bound of our figure; the reference tells how good the machine is."""
    return Line(name, _values(ours), _values(reference), most, unit, Of.OURS, at_most=True)


def _values(given: Sequence[float] | float) -> list[float]:
    return [float(given)] if isinstance(given, int | float) else list(given)


def number(value: float) -> str:
    """Return a figure with as many digits as say something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
