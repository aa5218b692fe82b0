"""What the store's state was in the last minutes, and small plots of it."""

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
    """A small plot: the points of a line in a box, its newest value and its largest."""

    title: str
    newest: str
    largest: str
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
    """Return the plots of the samples, oldest first."""
    rates = [
        (after.wals - before.wals) / (after.time - before.time) if after.wals >= before.wals else 0.0
        for before, after in pairwise(samples)
    ]
    return [
        _plot("commits per second", [round(rate, 1) for rate in rates]),
        _plot("WALs not in storage yet", [float(sample.unsynced) for sample in samples]),
        _plot("WALs not checkpointed yet", [float(sample.uncheckpointed) for sample in samples]),
        _plot("data files, KiB", [float(sample.data_bytes // 1024) for sample in samples]),
    ]


def _plot(title: str, values: list[float]) -> Plot:
    top = max(values, default=0.0)
    step = _PLOT_WIDTH / (_KEPT - 1)
    start = _PLOT_WIDTH - step * (len(values) - 1)
    points = " ".join(
        f"{start + number * step:.1f},{_PLOT_HEIGHT - 2 - (value / top if top else 0) * (_PLOT_HEIGHT - 4):.1f}"
        for number, value in enumerate(values)
    )
    return Plot(title, f"{values[-1]:g}" if values else "", f"{top:g}", points)
