"""Windows of logs by their groups, and the ways to errors and texts, against logs that are read from the beginning."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agola_core.errors import ConflictError
from agola_core.runservice.logs.line_index import MAX_LINE_BYTES, LineCounter, split_lines
from agola_core.runservice.logs.line_marks import ends_group, group_marks, group_name, is_error, is_warning
from agola_core.runservice.logs.live_logs import LiveLogs
from agola_core.runservice.logs.log_view import SHORT_GROUP, LogView
from agola_core.runtime.context import Context

LINES = [b"plain\n", b"error: it broke\n", b"a terror\n", b"::group::build\n", b"::endgroup::\n", b" ::group::in\n"]
ODD = [
    b"\n",
    b"say ::group::no\n",
    b"x" * (MAX_LINE_BYTES + 9),
    b"\r\n",
    b"\x1b[31mERROR: red\x1b[0m\n",
    b"::group::",
    b"\xff",
]
LIKELY = [
    *(b"er\x1b[31mror\x1b[0m: cut by colours\n", b"a ter\x1bMror: of another word\n", b"\x1b]0;error: title\x07fine\n"),
    *(b"fine\rerror: written over\n", b"error: written over\rfine\n", b"x\r 0 failed\r\r\n", b"a\r\x0b Error\r\n"),
    *(b"\x1b[1mE\x1b[0m   assert\n", b"12 tests failed\n", b"0 failed\n", b"0 fatal: no\n", b"x failed\n", b"faile\n"),
    *(b"terror:\n", b"terror: ::error\n", b"[CRITICAL] low\n", b"uncritical: no\n", b" " * 397 + b"errors\n"),
    *(b"x" * 391 + b" error: near\n", b"x" * 396 + b" error: far\n", b"\x1b]8;;error: never ends\n", b"a 0 error\n"),
    *(b"x" * 30_000 + b" ", b"error: in a line that is cut\n", b"x" * (MAX_LINE_BYTES - 3) + b"error: at the cut\n"),
]
texts = st.lists(st.sampled_from([*LINES, *LINES, *ODD, b"plain\n" * 60, b"y" * 9000 + b"\n"])).map(b"".join)
MIXED = [*LIKELY, *LINES, *ODD]


class Reader:
    def __init__(self, data):
        self.data = data

    def read(self, offset, length):
        return self.data[offset : offset + length]

    def close(self):
        pass


def view(data, stride=20_000):
    counter = LineCounter((data[place : place + 7_000] for place in range(0, len(data), 7_000)), stride)
    assert b"".join(counter) == data
    return LogView(Reader(data), counter.index(), Context())


def told(data):
    """Return a log's lines, each with the line that began its group, or None, counted from the beginning."""
    found, group, is_cut = [], None, False
    for number, line in enumerate(split_lines(data)):
        if not is_cut and group_name(line) is not None:
            group = number
        found.append((line, group))
        if not is_cut and ends_group(line):
            group = None
        is_cut = not line.endswith(b"\n")
    return found


@given(texts, st.integers(1, 120), st.integers(0, 10**6))
def test_windows_follow_each_other_and_each_line_is_in_its_group(data, count, place):
    whole, looked = told(data), view(data)
    ends = {group: number + 1 for number, (_, group) in enumerate(whole) if group is not None}

    def check(pieces, first):
        for piece in pieces:
            assert piece.first == first
            group = piece.group
            if group is not None:
                assert (group.first, group.end) == (whole[first][1], ends[group.first])
                assert group_name(whole[group.first][0]) == group.name
            if piece.lines:
                mine = [(line, group.first if group else None) for line in piece.lines]
                assert mine == whole[first : first + len(mine)]
                assert piece.begin == sum(len(line) for line, _ in whole[:first])
                first += len(mine)
            else:
                assert first == group.first
                assert group.end - group.first > SHORT_GROUP
                errors = [number for number in range(first, group.end) if is_error(whole[number][0])]
                assert piece.error == (errors[0] if errors else None)
                first = group.end
        return first

    line = 0
    while line < len(whole):  # from window to window to the end
        after = check(looked.window(line, count), line)
        assert after > line
        line = after
    while line > 0:  # and back
        pieces = looked.before(line, count)
        assert check(pieces, pieces[0].first) == line
        line = pieces[0].first
    if whole:
        line = place % len(whole)
        pieces = looked.around(line, count)
        check(pieces, pieces[0].first)
        shown = {piece.first + number for piece in pieces for number in range(max(1, len(piece.lines)))}
        assert line in shown
        assert all(one.group != other.group or one.group is None for one, other in pairwise(pieces))


@given(texts, st.integers(0, 10**6))
def test_the_ways_to_errors_and_texts_lead_where_a_reader_from_the_beginning_finds_them(data, place):
    lines, looked = list(split_lines(data)), view(data)
    errors = [number for number, line in enumerate(lines) if is_error(line)]
    line = place % (len(lines) + 1)
    assert looked.next_error(line) == next((number for number in errors if number >= line), None)
    assert looked.previous_error(line) == next((number for number in reversed(errors) if number < line), None)
    assert looked.count_errors() == (len(errors), True)
    texts = [number for number, text in enumerate(lines) if b"plain" in text]
    assert looked.next_text(b"PLAIN", line) == next((number for number in texts if number >= line), None)
    assert looked.previous_text(b"PLAIN", line) == next((number for number in reversed(texts) if number < line), None)
    assert looked.find(b"PLAIN", 5) == ([(number, lines[number]) for number in texts[:5]], len(texts) <= 5)


ESCAPE = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
ERROR = re.compile(
    rb"^\s*(?!0 )(?:\S{0,40} )?(?:(?:error|fatal|panic|fail(?:ed|ure)?)\b|traceback \(most|e   )"
    rb"|\b(?:error|fatal|panic|critical)\b ?[:!\]]|::error",
    re.IGNORECASE,
)
WARNING = re.compile(rb"^\s*(?!0 )(?:\S{0,40} )?warn(?:ing)?s?\b|\bwarn(?:ing)?\b ?[:!\]]|::warning", re.IGNORECASE)


def told_simply(pattern, line):
    text = ESCAPE.sub(b"", line).rstrip(b"\r\n").rpartition(b"\r")[2]
    is_word_cut = re.match(rb"\w", text[400:401])
    shown = re.sub(rb"\w+$", b"", text[:400]) if is_word_cut else text[:400]
    return pattern.search(shown) is not None


WORDS = [
    b"error",
    b"Fatal",
    b"panic",
    b"CRITICAL",
    b"failed",
    b"failure",
    b"warn",
    b"traceback (most",
    b"E   ",
    b"0 ",
    b"x",
]
words = st.lists(
    st.sampled_from([*WORDS, b"0 ", b"x", b" ", b":", b"::", b"!", b"]", b"\t", b"\r", b"\x1b[1m", b"\x1bM", b"x" * 39])
)


@given(words.map(b"".join), st.sampled_from([b"", b"\n", b"\r\n"]))
def test_errors_and_warnings_are_what_the_simple_patterns_tell(text, end):
    line = text + end
    assert (is_error(line), is_warning(line)) == (told_simply(ERROR, line), told_simply(WARNING, line))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(MIXED) - 1), st.sampled_from([1, 1, 1, 80]))),
    st.sampled_from([50, 3000, 20_000]),
    st.integers(0, 10**6),
)
def test_errors_are_found_as_line_by_line_at_every_border_of_blocks(parts, stride, place):
    data = b"".join(MIXED[line] * count for line, count in parts)
    lines = list(split_lines(data))
    errors = [number for number, line in enumerate(lines) if is_error(line)]
    line = place % (len(lines) + 1)
    for counted in (False, True):
        looked = view(data, stride)
        if counted:
            assert all_errors(looked) == len(errors)
        assert looked.next_error(line) == next((number for number in errors if number >= line), None)
        assert looked.previous_error(line) == next((number for number in reversed(errors) if number < line), None)
        assert all_errors(looked) == len(errors)
        assert sum(looked.errors) == len(errors)


def all_errors(looked):
    """Count on until all lines were looked at, as the page does."""
    while not (counted := looked.count_errors())[1]:
        looked = LogView(looked._reader, replace(looked.index, errors=looked.errors), Context())
    return counted[0]


@pytest.mark.parametrize(
    ("line", "error", "warning"),
    [
        (b"E   assert 1 == 2\n", True, False),
        (b"10 %\r\x1b[Kerror: it broke\n", True, False),
        (b"\x1b[33mwarning:\x1b[0m old\n", False, True),
        (b"::error file=a.c::no\n", True, False),
        (b"0 errors\n", False, False),
        (b"x" * 500 + b" error: far\n", False, False),
    ],
)
def test_lines_are_marked_by_what_a_terminal_shows(line, error, warning):
    assert (is_error(line), is_warning(line)) == (error, warning)


@pytest.mark.parametrize("indent", range(34, 43))
@pytest.mark.parametrize("before", [b"", b"plain\n", b"y" * 50 + b"\n"])
def test_one_line_tells_of_a_group_what_many_lines_tell(indent, before):
    for line in (
        b"%s::group::a ::group::b\n",
        b"%s::endgroup::\n",
        b"%s::group::group::\n",
        b"%s::endgroup::group::\n",
    ):
        data = line.replace(b"%s", b" " * indent)
        marks = [mark.begins for mark in group_marks(before + data)]
        assert marks == [True] * (group_name(data) is not None) + [False] * ends_group(data)


def test_a_growing_log_that_its_step_empties_is_looked_into_anew():
    class Client:
        log = b"line\n" * 60_000

        def open_log(self, task_id, step, *, follow, offset=0):
            yield from (piece for piece in (self.log[offset : offset + 9], self.log[offset + 9 :]) if piece)

    client, live = Client(), LiveLogs()

    def looked():
        return live.view(client, "e1", 1, "a", 0, Context())

    with looked() as view:
        assert view.index.lines == 60_000
        client.log = b"new\n"
        with pytest.raises(ConflictError, match="emptied its log"):
            view.window(0, 500)
    hidden = b"x\n" * 300 + b"*" * 255, b"x\n" * 300 + b"-\n" * 127 + b"x\n"  # what might have been a secret was none
    for log in (b"new\n", b"newer\n" * 70_000, b"", b"a\nb", b"a\nb\nc\n", *hidden):
        client.log = log
        with looked() as view:
            assert view.index.size == len(log)
            lines = [line for piece in view.window(0, 500) for line in piece.lines]
            assert lines == list(split_lines(log))[:500]
            whole = LineCounter()
            whole.take(log)
            assert view.index == whole.index()
    for log in (b"error: it\n" * 90_000, b"fine\n" * 200_000, b"fine\n" * 200_000 + b"error: it\n" * 90_000):
        client.log = log
        counted = 0, False
        while not counted[1]:
            with looked() as view:
                counted = view.count_errors()
        assert counted[0] == log.count(b"error")
        with looked() as view:  # but for the last block, what was counted is known
            assert [errors >= 0 for errors in view.errors] == [True] * (len(view.errors) - 1) + [False]
