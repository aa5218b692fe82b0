"""One figure beside its reference."""

from __future__ import annotations

from typing import NamedTuple


class Result(NamedTuple):
    """A measured rate, the reference's, and the goal for their ratio."""

    name: str
    ours: float
    reference: float
    goal: float
    unit: str = "per second"

    @property
    def ratio(self) -> float:
        return self.ours / self.reference

    def row(self) -> tuple[str, ...]:
        held = "held" if self.ratio >= self.goal else "missed"
        return (
            self.name,
            f"{self.ours:,.0f}",
            f"{self.reference:,.0f}",
            self.unit,
            f"{self.ratio:.2f}",
            f">= {self.goal:g}",
            held,
        )
