"""The last lines of a log, those since a time, and each with its time, against the whole log looked through."""

import contextlib
from array import array
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agola_core
from agola_core.runservice.logs import log_part
from agola_core.runservice.logs.line_index import MAX_LINE_BYTES
from agola_core.runservice.logs.log_part import beginning, stamped, stored_from
from agola_core.runservice.model.line_times import GrowingTimes, LineClock, LineTimes, shown
from agola_core.runservice.model.requests import LogPart

PARTS = [b"one\n", b"tail", b"\n", b"\r\n", b"x" * 40_000, b"\xff\n"]
logs = st.lists(st.integers(0, len(PARTS) - 1), max_size=20).map(lambda chosen: b"".join(PARTS[n] for n in chosen))


def times_of(*records):
    """Return times that are read a few records at a time."""
    clock = LineClock()
    data = b"".join(clock.take(size, stamp) for size, stamp in records if size > clock.size)
    return GrowingTimes(lambda offset: data[offset : offset + 20])


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(log_part, "_WINDOW", 64)


@settings(deadline=None)
@given(logs, st.integers(0, 25), st.integers(0, 3000), st.integers(1, 50_000), st.booleans())
def test_a_part_begins_where_its_first_line_does(data, tail, since, cut, by_time):
    def opened(offset):
        return iter([data[place : place + cut] for place in range(offset, len(data), cut)])

    half = len(data) // 2
    times = times_of((half, 1000), (len(data), 2000))
    for _ in range(3):
        times.reach(len(data))
    lines = data.splitlines(keepends=True) if b"\r" not in data else data.replace(b"\r", b"r").splitlines(keepends=True)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=since) if by_time else None
    begin = beginning(opened, len(data), times, LogPart(since=moment, tail=tail))
    last = len(data) - sum(map(len, lines[len(lines) - min(tail, len(lines)) :]))
    if moment is None:
        assert begin == last
        return
    written = 0 if since <= 1000 else half if since <= 2000 else len(data)
    if not half and since <= 2000:
        written = 0
    newline = data.rfind(b"\n", max(0, written - MAX_LINE_BYTES), written) + 1
    inside = written - max(newline, 0) > MAX_LINE_BYTES or (not newline and written > MAX_LINE_BYTES)
    assert begin == max(last, written if inside else newline)


@settings(deadline=None)
@given(logs, st.integers(1, 50_000))
def test_each_line_has_its_time_before_it_and_bytes_stay(data, cut):
    clock = LineClock()
    raw = b"".join(clock.take(size, size + 5) for size in (*range(1000, len(data), 1000), len(data)) if size)
    pieces = [piece for place in range(0, len(data), cut) for piece in (data[place : place + cut], b"")]
    timed = b"".join(stamped(iter(pieces), 0, GrowingTimes(lambda offset: raw[offset:])))
    whole = GrowingTimes(lambda offset: raw[offset:])
    whole.reach(len(data))
    expected, offset = b"", 0
    for line in data.split(b"\n"):
        end = min(offset + len(line) + 1, len(data))
        if offset < end:
            expected += shown(whole.at(min(end, offset + MAX_LINE_BYTES))) + data[offset:end]
        offset = end
    assert timed == expected


def test_a_stored_log_is_read_from_a_byte_on(tmp_path):
    with contextlib.closing(agola_core.open_storage(f"posix://{tmp_path}")) as storage:
        storage.write("log", b"0123456789")
        assert b"".join(stored_from(storage, "log", 4)) == b"456789"


def test_what_was_written_just_now_has_the_time_of_now_only_where_times_are_recorded():
    at_first = LineTimes(array("Q", [4]), array("Q", [1000]))
    raw = LineClock().take(4, 1000)
    live = GrowingTimes(lambda offset: raw[offset:], lambda: 5000)
    live.reach(8)
    assert (live.times, live.at(4), live.at(8)) == (at_first, 1000, 5000)
    none = GrowingTimes(lambda offset: b"", lambda: 5000)
    none.reach(8)
    assert none.at(8) is None
    early = GrowingTimes(lambda offset: raw[offset:], lambda: 10)
    early.reach(8)
    assert early.at(8) == 1000
