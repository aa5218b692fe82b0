"""The history of a store: bounded, unchanged while nothing changes, told while storage is away, needed by nobody."""

import os
import threading
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from agola_core import Put
from agola_core.datamanager import Counters
from agola_core.runservice.archive.recent_samples import RecentSamples
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
from agola_core.runservice.archive.stored_notes import StoredNotes
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
    assert (kept.wals, kept.uncheckpointed) == (sample_of(dm.counters(), 0.0).wals, 1)
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


def test_the_last_hour_is_kept_in_memory_finely_at_its_end():
    now, reads = [0.0], []

    def read():
        reads.append(now[0])
        return Counters(1, len(reads), 0, 0, 0)

    recent = RecentSamples(read, lambda: now[0])
    for tick in range(4 * 7200):  # four times a second, for two hours
        now[0] = tick / 4
        recent.take()
    times = [sample.time for sample in recent.all()]
    assert len(reads) == 7200
    assert times == sorted(times)
    assert (times[0], times[-1]) == (3600.0, 7199.0)
    assert {after - before for before, after in pairwise(times[-300:])} == {1.0}
    assert max(after - before for before, after in pairwise(times)) == 10.0
    assert len(times) <= 360 + 300
    now[0] += 3599
    assert len(recent.all()) == 1


def test_a_service_takes_samples_without_being_asked(service, dm):
    dm.write_wal([Put("run", "r", b"{}")])
    service._sweeps.sweep()
    assert service.recent.all()
    assert dm.counters().wals == dm.status().uncheckpointed_wals == 1


def test_notes_are_told_while_storage_is_away_and_come_back(dm):
    record_export(dm.storage, LastExport(datetime(2030, 1, 1, tzinfo=UTC), "native", 5))
    notes = StoredNotes(lambda: dm.storage)
    known = notes.read()
    assert (known.exported.size, known.verified, known.away_since) == (5, None, None)
    root = Path(dm.storage.root)
    moved = root.rename(root.with_name("moved"))
    away = notes.read()
    assert (away.exported, away.read) == (known.exported, known.read)
    assert away.away_since is not None
    assert notes.read().away_since == away.away_since
    assert StoredNotes(lambda: dm.storage).read().read is None
    moved.rename(root)
    assert notes.read().away_since is None
    assert notes.read(max_age=3600.0) == notes.read(max_age=3600.0)


def test_notes_for_which_there_is_no_thread_are_read_when_there_is_one(dm, monkeypatch):
    notes = StoredNotes(lambda: dm.storage)

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        assert notes.read().away_since is not None
    assert notes.read().away_since is None


def test_a_storage_that_hangs_holds_nobody_up(dm):
    notes = StoredNotes(lambda: dm.storage, patience=0.0, patience_away=0.0)
    pipe = Path(dm.storage.root, "data", object_paths.STORE_HISTORY)
    pipe.parent.mkdir()
    os.mkfifo(pipe)  # opening it waits for a writer
    away = notes.read()
    assert away.away_since is not None
    assert notes.read() == away
    with pipe.open("wb"):
        pipe.unlink()
    while notes.read().away_since is not None:
        pass
