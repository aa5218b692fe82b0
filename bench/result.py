"""One figure beside its reference."""

from __future__ import annotations

from typing import NamedTuple


class Result(NamedTuple):
    """A measured figure, the reference's, and the goal for their ratio."""

    name: str
    ours: float
    reference: float
    goal: float
    unit: str = "per second"
    at_most: bool = False

    @property
    def ratio(self) -> float:
        return self.ours / self.reference

    @property
    def held(self) -> bool:
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal

    def row(self) -> tuple[str, ...]:
        return (
            self.name,
            number(self.ours),
            number(self.reference),
            self.unit,
            f"{self.ratio:.2f}",
            f"{'<=' if self.at_most else '>='} {self.goal:g}",
            "held" if self.held else "missed",
        )


class Limit(NamedTuple):
    """A measured figure with a limit of its own; its reference tells how good the machine is."""

    name: str
    ours: float
    reference: float
    limit: float
    unit: str

    def row(self) -> tuple[str, ...]:
        return (
            self.name,
            number(self.ours),
            number(self.reference),
            self.unit,
            f"{self.ours / self.reference:.2f}",
            f"<= {self.limit:g} {self.unit}",
            "held" if self.ours <= self.limit else "missed",
        )


def number(value: float) -> str:
    """Return a figure with as many digits as say something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
