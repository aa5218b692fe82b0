"""The lines of a log, as a page shows them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agola_http.page.log.log_rows import rows
from agola_http.page.render import shortened


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain\n", "plain"),
        (b"no newline", "no newline"),
        (b"dos\r\n", "dos"),
        (b"10 %\r50 %\r100 %\n", "100 %"),
        (b"\x1b[1;31mred\x1b[0m and \x1b]8;;https://x\x07link\x1b]8;;\x07\n", "red and link"),
        (b"cut \xf0\x9f", "cut \ufffd"),
        (b"<b>&amp;\n", "<b>&amp;"),
        (b"\n", ""),
    ],
)
def test_a_line_is_what_a_terminal_would_leave(line, shown):
    (row,) = rows([line], 7)
    assert (row.number, "".join(span.text for span in row.spans)) == (7, shown)


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("\x1b[31mred\x1b[0m plain", [("red", "fg1"), (" plain", "")]),
        ("\x1b[1;4;97;41mloud\x1b[22;24m less\x1b[m", [("loud", "bold underline fg15 bg1"), (" less", "fg15 bg1")]),
        ("\x1b[38;5;196mred\x1b[39m\x1b[48;5;2mgreen", [("red", "fg9"), ("green", "bg2")]),
        ("\x1b[38;2;10;20;250mblue\x1b[38;2;0;0;0mblack", [("blue", "fg12"), ("black", "fg0")]),
        ("\x1b[38;5;240mgrey\x1b[38mrest", [("grey", "fg8"), ("rest", "fg8")]),
        ("\x1b[2;3mfaint\x1b[23m", [("faint", "dim italic")]),
        ("\x1b[" + "1;" * 5000 + "mcalm", [("calm", "")]),
        ("\x1b[999;77mcalm", [("calm", "")]),
    ],
)
def test_styles_are_told_by_classes(text, spans):
    (row,) = rows([text.encode()], 1)
    assert row.spans == spans


def test_a_style_goes_on_until_it_is_reset():
    styles = [[span.classes for span in row.spans] for row in rows([b"\x1b[32mone\n", b"two\n", b"\x1b[0mthree"], 1)]
    assert styles == [["fg2"], ["fg2"], [""]]


@given(st.binary(max_size=200))
def test_any_bytes_make_a_row(data):
    (row,) = rows([data], 1)
    assert all(span.text and "\x1b[0m" not in span.text for span in row.spans)


def test_names_that_differ_at_their_ends_still_differ_when_they_are_shortened():
    names = [f"integration tests of the storage, part {number}" for number in range(10, 20)]
    assert len({shortened(name, 20) for name in names}) == 10
    assert {len(shortened(name, 20)) for name in names} == {20}
    assert shortened("short", 20) == "short"
