"""Memory does not grow with the store: each procedure's peak, measured at two sizes."""

import tracemalloc

import pytest

import agola_core
from agola_core import Options, Put
from agola_core.datamanager.sstable.files.block_cache import BlockCache

OPTIONS = Options(
    background=False,
    inline_limit=1000,
    block_size=4096,
    file_size=128 * 1024,
    checkpoint_bytes=256 * 1024,
    checkpoint_wals=1_000_000,
    retain_manifests=1,
    retain_wals=5,
    grace_period=0,
)
TINY, SMALL, LARGE = 100, 1000, 6000
ALLOWANCE = 300_000
"""Bytes for what does grow, a little: an entry of a list for each data file or batch, an index for each block."""
LARGE_VALUE = 120_000
MORE_RUNS = 3
"""A merge holds a value of each run that it reads, whose number grows as the logarithm of the store does."""


def open_store(path, **more):
    return agola_core.open(path, data_types=["n"], options=OPTIONS, **more)


def fill(path, objects, *, checkpoints):
    with open_store(path) as dm:
        for start in range(0, objects, 50):
            dm.write_wal([Put("n", f"{number:06}", b"%06d" % number * 160) for number in range(start, start + 50)])
            if checkpoints:
                dm.checkpoint()
            if start % 100 == 0:
                dm.sync()
        if checkpoints:
            dm.checkpoint(force=True)
            dm.clean_up()
        dm.sync()


def peak(action):
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def write_and_checkpoint(path, objects):
    with open_store(path) as dm:
        for start in range(0, objects, 50):
            dm.write_wal([Put("n", f"{number:06}", b"%06d" % number * 160) for number in range(start, start + 50)])
            dm.checkpoint()


def write_large_wals(path, objects):
    with open_store(path) as dm:
        for number in range(objects // 100):
            dm.write_wal([Put("n", f"{number:06}", b"%06d" % number * (LARGE_VALUE // 6))])  # a payload each
            dm.checkpoint()


def scan(path, objects):
    with open_store(path) as dm:
        assert sum(1 for _ in dm.list_objects("n")) == objects


def recover(path, objects):
    for file in path.glob("coordinator.db*"):
        file.unlink()
    open_store(path).close()


def verify(path, objects):
    assert agola_core.verify(path) == []


def collect(path, objects):
    with open_store(path) as dm:
        dm.clean_up()
        dm.collect_garbage()


def read_the_past(path, objects):
    with agola_core.open(path, data_types=["n"], options=OPTIONS, at=past_sequence(path)) as past:
        assert sum(1 for _ in past.list_objects("n")) == objects


def past_sequence(path):
    with open_store(path) as dm:
        return dm.sequence


@pytest.mark.parametrize(
    ("procedure", "checkpoints"),
    [
        (scan, True),
        (verify, True),
        (collect, True),
        (read_the_past, True),
        (recover, False),
        (write_and_checkpoint, None),
        (write_large_wals, None),
    ],
)
def test_the_peak_is_the_same_for_a_larger_store(tmp_path, monkeypatch, procedure, checkpoints):
    monkeypatch.setattr("agola_core.datamanager.log.recent_wals._RECENT_BYTES", 200_000)
    monkeypatch.setattr(BlockCache.__init__, "__defaults__", (100_000, 8, 100_000))  # caches are full at either size
    peaks = []
    for objects in (TINY, SMALL, LARGE):  # the first loads the modules that it needs
        path = tmp_path / f"{objects}"
        if checkpoints is not None:
            fill(path, objects, checkpoints=checkpoints)
        peaks.append(peak(lambda: procedure(path, objects)))  # noqa: B023
    allowance = ALLOWANCE + MORE_RUNS * LARGE_VALUE if procedure is write_large_wals else ALLOWANCE
    assert peaks[2] <= peaks[1] + allowance, peaks
