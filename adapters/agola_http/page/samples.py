"""Recent samples of the store's state, and small plots of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from itertools import pairwise

import msgspec

from agola_core.datamanager import Status
from agola_core.sequence import Sequence

_KEPT = 300
_PLOT_WIDTH, _PLOT_HEIGHT = 240, 48
_LEAST_SECONDS = 10.0


class Sample(msgspec.Struct, frozen=True):
    """The store at one moment.

    Attributes:
        time: Seconds, of a clock that is not set back.
        wals: The number of the newest WAL.
        unsynced: WALs that object storage does not have yet.
        uncheckpointed: WALs that no data file has yet.
        data_bytes: Bytes of data files.
    """

    time: float
    wals: int
    unsynced: int
    uncheckpointed: int
    data_bytes: int


class Plot(msgspec.Struct, frozen=True):
    """A small plot: the points of a line in a box, its newest value and its largest, and the time that it spans."""

    title: str
    newest: str
    largest: str
    span: str
    points: str
    width: int = _PLOT_WIDTH
    height: int = _PLOT_HEIGHT


def take_sample(status: Status, now: float) -> Sample:
    """Return what is plotted of a store's status."""
    newest, synced = Sequence.parse(status.sequence), Sequence.parse(status.synced)
    unsynced = newest.counter - synced.counter if newest.epoch == synced.epoch else 0
    return Sample(now, newest.counter, unsynced, status.uncheckpointed_wals, status.data_bytes)


class Samples:
    """Keeps samples, at most one a second.

    Args:
        clock: Seconds, of a clock that is not set back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._samples: deque[Sample] = deque(maxlen=_KEPT)

    def add(self, status: Status) -> list[Sample]:
        """Add a sample, unless the last one is newer than a second, and return all."""
        now = self._clock()
        with self._lock:
            if not self._samples or now - self._samples[-1].time >= 1.0:
                self._samples.append(take_sample(status, now))
            return list(self._samples)


def plots(samples: list[Sample]) -> list[Plot]:
    """Return the plots of the samples, oldest first: over the time that the samples span."""
    rates = [
        (after.time, (after.wals - before.wals) / (after.time - before.time) if after.wals >= before.wals else 0.0)
        for before, after in pairwise(samples)
    ]
    return [
        _plot("commits per second", [(time, round(rate, 1)) for time, rate in rates]),
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
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
