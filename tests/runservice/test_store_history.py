"""The history of a store over days: bounded, unchanged while nothing changes, and nothing that others depend on."""

from datetime import UTC, datetime

from agola_core import Put
from agola_core.runservice.archive.store_history import (
    MAX_SAMPLES,
    LastExport,
    StoreHistory,
    StoreSample,
    read_export,
    read_history,
    record_export,
    record_sample,
    sample_of,
    with_sample,
)
from agola_core.runservice.model import object_paths


def sample(time, wals):
    return StoreSample(time, 1, wals, 0, wals, 10 * wals)


def test_a_history_is_bounded_and_keeps_its_beginning_and_its_end():
    history = StoreHistory()
    for hour in range(5000):
        history = with_sample(history, sample(3600.0 * hour, hour + 1))
    times = [item.time for item in history.samples]
    assert len(times) <= MAX_SAMPLES
    assert (times[0], times[-1]) == (0.0, 3600.0 * 4999)
    assert times == sorted(times)


def test_an_idle_store_adds_a_sample_a_day_and_an_empty_one_none():
    empty = StoreHistory()
    assert with_sample(empty, sample(0.0, 0)) is empty
    first = with_sample(empty, sample(0.0, 5))
    assert with_sample(first, sample(3600.0, 5)) is first
    assert len(with_sample(first, sample(86400.0, 5)).samples) == 2
    assert len(with_sample(first, sample(3600.0, 6)).samples) == 2


def test_samples_stay_in_order_when_the_clock_is_set_back():
    day = 86400.0
    history = with_sample(with_sample(StoreHistory(), sample(day, 1)), sample(5 * day, 2))
    assert with_sample(history, sample(5 * day - 60, 3)) is history
    assert [item.time for item in with_sample(history, sample(2 * day, 3)).samples] == [day, 2 * day]


def test_it_is_written_by_the_service_and_begins_anew_when_it_is_damaged(service, dm):
    dm.write_wal([Put("run", "r", b"{}")])
    while not service._sweeps.clean():  # its own loop may be at it
        pass
    (kept,) = read_history(dm.storage).samples
    assert (kept.wals, kept.uncheckpointed) == (sample_of(dm.status(), 0.0).wals, 1)
    record_sample(dm.storage, kept)
    assert read_history(dm.storage).samples == (kept,)
    dm.storage.write(object_paths.STORE_HISTORY, b'{"samples": []}\nno digest\n')
    assert read_history(dm.storage).samples == ()
    assert dm.verify() == []


def test_the_last_export_is_kept(dm):
    assert read_export(dm.storage) is None
    export = LastExport(datetime(2030, 1, 1, tzinfo=UTC), "native", 5)
    record_export(dm.storage, export)
    assert read_export(dm.storage) == export
