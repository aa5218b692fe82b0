"""The lines of a log, as a page shows them."""

import pytest

from agola_http.page.log_rows import row_text
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
    assert row_text(line) == shown


def test_names_that_differ_at_their_ends_still_differ_when_they_are_shortened():
    names = [f"integration tests of the storage, part {number}" for number in range(10, 20)]
    assert len({shortened(name, 20) for name in names}) == 10
    assert {len(shortened(name, 20)) for name in names} == {20}
    assert shortened("short", 20) == "short"
