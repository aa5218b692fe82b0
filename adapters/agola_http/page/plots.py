"""Small plots of samples of a store, recent ones and those of days."""

from __future__ import annotations

from itertools import pairwise

import msgspec

from agola_core.runservice.archive.store_history import StoreSample

_PLOT_WIDTH, _PLOT_HEIGHT = 240, 48
_LEAST_SECONDS = 10.0


class Plot(msgspec.Struct, frozen=True):
    """A small plot: the points of a line in a box, its newest value and its largest, and the time that it spans."""

    title: str
    newest: str
    largest: str
    span: str
    points: str
    width: int = _PLOT_WIDTH
    height: int = _PLOT_HEIGHT


def plots(samples: list[StoreSample]) -> list[Plot]:
    """Return the plots of the samples, oldest first: over the time that the samples span."""
    rates = [
        (
            after.time,
            max(after.wals - before.wals, 0) / (after.time - before.time) if after.epoch == before.epoch else 0.0,
        )
        for before, after in pairwise(samples)
        if after.time > before.time
    ]
    return [
        _plot("commits per second", [(time, round(rate, 2)) for time, rate in rates]),
        _plot("WALs not in storage yet", [(sample.time, float(sample.unsynced)) for sample in samples]),
        _plot("WALs not checkpointed yet", [(sample.time, float(sample.uncheckpointed)) for sample in samples]),
        _plot("data files, KiB", [(sample.time, float(sample.data_bytes // 1024)) for sample in samples]),
    ]


def _plot(title: str, values: list[tuple[float, float]]) -> Plot:
    top = max((value for _, value in values), default=0.0)
    start, end = (values[0][0], values[-1][0]) if values else (0.0, 0.0)
    scale = _PLOT_WIDTH / max(end - start, _LEAST_SECONDS)
    height = (_PLOT_HEIGHT - 4) / top if top else 0.0
    points = " ".join(
        f"{_PLOT_WIDTH - (end - time) * scale:.1f},{_PLOT_HEIGHT - 2 - value * height:.1f}" for time, value in values
    )
    return Plot(title, f"{values[-1][1]:g}" if values else "", f"{top:g}", _span(end - start), points)


def _span(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
