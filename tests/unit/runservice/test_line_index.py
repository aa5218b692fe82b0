"""The index of a log's lines, against lines that are counted from the beginning."""

import contextlib
from itertools import pairwise
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agola_core
from agola_core.errors import DeadlineError, NotFoundError
from agola_core.runservice.logs import log_view
from agola_core.runservice.logs.line_index import MAX_LINE_BYTES, NOT_COUNTED, LineCounter, split_lines
from agola_core.runservice.logs.log_lines import open_view, write_log
from agola_core.runservice.model import object_paths
from agola_core.runtime.context import Context

PARTS = [b"\n", b"short\n", b"\r\n", b"x" * 5000, b"y" * (MAX_LINE_BYTES - 1), "ä€😀".encode() * 3000, b"\xff"]
texts = st.lists(st.sampled_from(PARTS)).map(b"".join)


def counted(data, cuts=(), stride=20_000):
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    counter = LineCounter((data[a:b] for a, b in pairwise(places)), stride)
    assert b"".join(counter) == data
    return counter.index()


@given(texts, st.lists(st.integers(0, 1 << 20), max_size=6))
def test_every_indexed_line_is_where_the_index_says_however_the_log_came(data, cuts):
    index = counted(data, cuts)
    whole = list(split_lines(data))
    assert b"".join(whole) == data
    assert (index.size, index.lines) == (len(data), len(whole))
    assert all(0 < len(line) <= MAX_LINE_BYTES and b"\n" not in line[:-1] for line in whole)
    for line, offset in index.starts:
        assert offset == sum(map(len, whole[:line]))
    for line in range(0, len(whole), 7):
        known, _ = index.before(line)
        assert known <= line


def test_a_line_without_end_is_cut_between_characters():
    data = "€".encode() * MAX_LINE_BYTES
    pieces = list(split_lines(data))
    assert len(pieces) > 2
    assert "".join(piece.decode() for piece in pieces) == data.decode()


@pytest.fixture
def storage(tmp_path):
    with contextlib.closing(agola_core.open_storage(f"posix://{tmp_path}")) as opened:
        yield opened


class Lines(NamedTuple):
    first: int
    lines: list
    total: int
    size: int


def read_lines(storage, task_id, step, first, count):
    with open_view(storage, task_id, step, Context()) as view:
        total = view.index.lines
        first = max(0, first + total) if first < 0 else min(first, total)
        return Lines(first, view.lines(first, count)[1], total, view.index.size)


def test_the_end_of_a_long_log_is_read_without_its_beginning(storage):
    lines = [b"%07d %s\n" % (number, b"." * (number % 90)) for number in range(200_000)]
    write_log(storage, "t", 0, lines)
    read = []

    class Counting:
        def __getattr__(self, name):
            return getattr(storage, name)

        def open_reader(self, path):
            reader = storage.open_reader(path)
            whole = reader.read
            reader_read = lambda offset, length: (read.append(length), whole(offset, length))[1]  # noqa: E731
            return type("R", (), {"read": staticmethod(reader_read), "close": staticmethod(reader.close)})()

    end = read_lines(Counting(), "t", 0, -500, 500)
    assert (end.first, end.total, end.lines) == (199_500, 200_000, lines[-500:])
    assert sum(read) <= 3 * 256 * 1024
    assert read_lines(storage, "t", 0, 45_000, 3).lines == lines[45_000:45_003]
    assert read_lines(storage, "t", 0, 199_999, 10).lines == lines[-1:]
    assert read_lines(storage, "t", 0, 10**12, 10).lines == []
    assert read_lines(storage, "t", 0, -(10**12), 2).lines == lines[:2]


LONG = [b"%06d\n" % number for number in range(50_000)]


OLD = msgspec.msgpack.encode({"size": 350_000, "lines": 50_000, "starts": [(0, 0)]})
"""As a version made it that knew no groups and errors."""


@pytest.mark.parametrize("damage", [None, b"", b"\x00garbage", OLD], ids=["absent", "empty", "garbage", "old"])
def test_a_long_log_without_a_good_index_gets_one(storage, damage):
    storage.write(object_paths.log("t", None), b"".join(LONG))
    if damage is not None:
        storage.write(object_paths.log_index("t", None), damage)
    for _ in range(2):
        found = read_lines(storage, "t", None, 40_000, 2)
        assert (found.lines, found.total, found.size) == (LONG[40_000:40_002], 50_000, 350_000)
    assert b"groups" in storage.read(object_paths.log_index("t", None))


def test_a_short_log_has_no_index(storage):
    write_log(storage, "t", None, [b"one\ntw", b"o\nthree"])
    found = read_lines(storage, "t", None, 1, 10)
    assert (found.lines, found.total, found.size) == ([b"two\n", b"three"], 3, 13)
    assert [info.path for info in storage.list()] == [object_paths.log("t", None)]


def test_an_index_of_another_log_is_not_believed(storage):
    write_log(storage, "t", 0, LONG)
    storage.write(object_paths.log("t", 0), b"new\n" + b"".join(LONG))
    assert read_lines(storage, "t", 0, 45_000, 1).lines == LONG[44_999:45_000]


def test_no_log_has_no_lines(storage):
    with pytest.raises(NotFoundError):
        read_lines(storage, "t", 0, 0, 10)


def test_an_empty_log_has_no_lines(storage):
    write_log(storage, "t", 0, [])
    assert (read_lines(storage, "t", 0, 0, 10).lines, read_lines(storage, "t", 0, -5, 10).total) == ([], 0)


def test_lines_with_a_text_are_found_anywhere_in_a_log(storage):
    lines = [b"line %06d %s\n" % (number, b"ERROR: it" if number % 9999 == 7 else b"fine") for number in range(60_000)]
    write_log(storage, "t", 0, lines)
    with open_view(storage, "t", 0, Context()) as view:
        assert view.find(b"error: IT", 10) == ([(number, lines[number]) for number in range(7, 60_000, 9999)], True)
        assert view.find(b"fine", 10) == ([(number, lines[number]) for number in range(11) if number != 7], False)
        assert view.find(b"nowhere", 10) == ([], True)
        assert view.previous_error(60_000) == 7 + 5 * 9999
        assert view.count_errors() == (6, True)
    ended = Context()
    ended.cancel()
    with open_view(storage, "t", 0, ended) as view, pytest.raises(DeadlineError):
        view.find(b"nowhere", 10)


def test_errors_are_counted_when_somebody_asks_and_known_from_then_on(storage, monkeypatch):
    lines = [b"line %06d %s\n" % (number, b"error: it" if number % 9999 == 7 else b"fine") for number in range(60_000)]
    looked, real = [], log_view.likely_errors
    monkeypatch.setattr(log_view, "likely_errors", lambda *asked: looked.append(asked[1:]) or real(*asked))
    index = write_log(storage, "t", 0, lines)
    assert (looked, index.errors) == ([], ())
    with open_view(storage, "t", 0, Context()) as view:
        assert view.lines(59_999, 1)[1] == lines[-1:]
        view.next_text(b"nowhere", 0)
    assert looked == []
    with open_view(storage, "t", 0, Context()) as view:
        assert view.next_error(0) == 7
    assert len(looked) == 1  # in the block that the line is in
    with open_view(storage, "t", 0, Context()) as view:
        assert set(view.errors) == {NOT_COUNTED}
        assert view.count_errors() == (6, True)
    looked.clear()
    with open_view(storage, "t", 0, Context()) as view:
        assert view.count_errors() == (6, True)
    assert looked == []


def test_many_lines_that_might_be_errors_are_counted_in_turns(storage, monkeypatch):
    monkeypatch.setattr(log_view, "_MOST_EXAMINED", 200)
    write_log(
        storage,
        "t",
        0,
        [*[b"no terror is here, says line %06d\n" % number for number in range(50_000)], b"error: it\n"],
    )
    told = []
    while not told or not told[-1][1]:
        with open_view(storage, "t", 0, Context()) as view:
            told.append(view.count_errors())
    assert len(told) in (2, 3)
    assert told[-1] == (1, True)
    assert set(told[:-1]) == {(0, False)}
