"""The times of a log's lines come back as they were recorded, however the log was written and the clock went."""

import contextlib
import itertools
import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

import agola_core
from agola_core.executor.tasks.directory import TaskDirectories
from agola_core.executor.tasks.log_times import TaskTimes
from agola_core.executor.tasks.log_watcher import LogWatcher
from agola_core.runservice.logs.line_index import split_lines
from agola_core.runservice.logs.log_lines import write_log
from agola_core.runservice.logs.log_times import read_times, write_times
from agola_core.runservice.model import line_times, object_paths
from agola_core.runservice.model.line_times import GrowingTimes, LineClock, encode, parse, shown

PARTS = [b"one\n", b"no newline", b"\r\n", b"\n", b"x" * 300_000, "ä€😀\n".encode(), b"\xff\x00"]
STEPS = [0, 0, 1, 2, 7, 1000, 3_600_000, 2**33, -1, -86_400_000]
chosen = st.lists(st.tuples(st.integers(0, len(PARTS) - 1), st.sampled_from(STEPS)), max_size=12)


@settings(deadline=None, max_examples=50)
@given(chosen, st.sets(st.integers(0, 11), max_size=3))
def test_each_line_has_the_time_of_its_write_also_after_restarts_of_the_executor(chosen, restarts):
    writes = [(PARTS[part], passed) for part, passed in chosen]
    clock, highest, known = [1_700_000_000_000], 0, []
    with tempfile.TemporaryDirectory() as root:
        directory = TaskDirectories(Path(root)).of("a")
        directory.create()
        times = TaskTimes(directory, LogWatcher(), lambda: clock[0])
        for number, (data, passed) in enumerate(writes):
            clock[0] += passed
            with directory.log(0).open("ab") as log:
                log.write(data)
                os.utime(log.fileno(), (2**33, 2**33))  # by which a restarted executor goes, if that has come yet
            if number in restarts:
                times = TaskTimes(directory, LogWatcher(), lambda: clock[0])
            highest = max(highest, clock[0])  # a clock that was set back stands still
            times.record(0)
            if number % 2 or number + 1 in restarts:
                times.end()
            known += [highest] * len(data)
        whole = b"".join(data for data, _ in writes)
        times.end()
        raw = directory.times(0).read_bytes() if whole else b""
        with contextlib.closing(agola_core.open_storage(f"posix://{root}/storage")) as storage:
            write_log(storage, "a", 0, [whole])
            if whole:
                write_times(storage, "a", 0, raw, len(whole))
                stored = parse(read_times(storage, "a", 0, len(whole)))
                assert [stored.at(end) for end in range(1, len(whole) + 1, 997)] == known[::997]
                assert stored.at(len(whole)) == known[-1]
            read = GrowingTimes(lambda offset: read_times(storage, "a", 0, len(whole))[offset:])
            ends = list(itertools.accumulate(map(len, split_lines(whole))))
            read.reach(len(whole))
            assert [read.at(end) for end in ends] == [known[end - 1] for end in ends]
            assert all(len(shown(read.at(end))) == 25 for end in ends)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 2**34), st.integers(0, 2**34)), min_size=1, max_size=20), st.data())
def test_numbers_of_any_size_round_trip_and_any_damage_leaves_no_times(steps, data):
    clock, size, now, raw, ends, stamps = LineClock(), 0, 5, b"", [], []
    for count, passed in steps:
        size, now = size + count, now + passed
        raw += clock.take(size, now)
        ends.append(size)
        stamps.append(now)
    times = parse(raw + b"\1\2\3")
    assert [times.at(end) for end in ends] == stamps
    assert times.at(size + 1) is None
    assert [times.before(stamp) for stamp in stamps] == [
        max((end for end, other in zip(ends, stamps, strict=True) if other < stamp), default=0) for stamp in stamps
    ]
    kept = encode(times, size)
    assert parse(line_times.decode(kept, size)) == times
    assert line_times.decode(kept, size + 1) == b""
    at = data.draw(st.integers(0, len(kept) - 1))
    assert line_times.decode(kept[:at] + bytes([kept[at] ^ 1]) + kept[at + 1 :], size) == b""
    assert line_times.decode(kept[:at], size) == b""
    half = times.clipped(ends[0])
    assert (half.size, half.at(ends[0])) == (ends[0], stamps[0])


def test_a_log_of_a_week_has_few_records():
    clock, now, size, records = LineClock(), 0, 0, 0
    while now < 7 * 86_400_000:
        size += 80
        records += len(clock.take(size, now)) // 8
        now += max(1, clock.wait(now))
    assert records < 350_000


def test_times_are_shown_up_to_the_last_year():
    assert shown(0) == b"1970-01-01T00:00:00.000Z "
    assert shown(253_402_300_799_999) == b"9999-12-31T23:59:59.999Z "
    assert parse(LineClock().take(1, 10**18)).at(1) == 253_402_300_799_999
    assert parse(b"agolalt1" + b"\xff" * 8) is None


def test_a_log_of_which_nothing_is_recorded_has_no_times(tmp_path):
    with contextlib.closing(agola_core.open_storage(f"posix://{tmp_path}")) as storage:
        write_log(storage, "a", 0, [b"one\n", b"two\n"])
        for damage in (None, b"", b"agolalts" + b"x" * 40):
            if damage is not None:
                storage.write(object_paths.log_times("a", 0), damage)
            assert read_times(storage, "a", 0, 8) == b""
        write_times(storage, "b", 0, b"hostile", 8)
        assert [info.path for info in storage.list("logs/b")] == []
