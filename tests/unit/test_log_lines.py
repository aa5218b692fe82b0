"""The beginning of a log, as a page shows it."""

from itertools import count

from agola_http.page.loglines import Beginning, log_lines


def test_a_log_without_an_end_and_without_lines_is_read_to_a_size():
    given = []

    def pieces():
        for number in count():
            given.append(number)
            yield b"x" * 1000

    beginning = Beginning(pieces(), 10_000, 60.0)
    assert sum(len(line) for line in log_lines(beginning)) == 10_000
    assert beginning.cut
    assert len(given) == 11


def test_a_log_that_drips_is_read_for_a_time():
    now = iter(range(1000))
    beginning = Beginning(iter(lambda: b"x\n", b""), 1 << 20, 10.0, lambda: float(next(now)))
    assert len(list(log_lines(beginning))) == 11
    assert beginning.cut


def test_a_log_that_fits_is_whole():
    beginning = Beginning([b"first\nsec", b"ond\n"], 13, 10.0)
    assert list(log_lines(beginning)) == ["first", "second"]
    assert not beginning.cut
