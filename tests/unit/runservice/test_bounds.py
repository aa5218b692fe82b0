"""What an executor may make the service store and wait for."""

import pytest

from agola_core.errors import BadRequestError, DeadlineError
from agola_core.runservice.model.bounds import GRACE_SECONDS, LEAST_RATE, Bounded


class Sender:
    """Sends pieces by a clock of its own."""

    def __init__(self, pieces, seconds):
        self.now = 0.0
        self.pieces = self.send(pieces, seconds)

    def send(self, pieces, seconds):
        for piece in pieces:
            self.now += seconds
            yield piece

    def clock(self):
        return self.now


def taken(pieces, seconds, most=1 << 30):
    sender = Sender(pieces, seconds)
    return b"".join(Bounded(sender.pieces, most, sender.clock))


def test_a_size_is_kept_to_the_byte():
    assert taken([b"12", b"34"], 0.0, most=4) == b"1234"
    bounded = Bounded(iter([b"12", b"345"]), 4)
    with pytest.raises(BadRequestError, match="more than 4 bytes"):
        list(bounded)
    assert bounded.too_large


def test_an_endless_one_ends():
    with pytest.raises(BadRequestError):
        taken(iter(lambda: b"x" * 1000, b""), 0.0, most=10_000)


def test_a_dripping_one_ends_soon_after_the_first_minute():
    sender = Sender(iter(lambda: b"x", b""), 1.0)
    with pytest.raises(DeadlineError, match="brought"):
        list(Bounded(sender.pieces, 1 << 30, sender.clock))
    assert GRACE_SECONDS <= sender.now <= GRACE_SECONDS + 2


def test_a_slow_line_is_fast_enough_and_a_slow_reader_is_not_the_executors_fault():
    assert len(taken([b"x" * int(LEAST_RATE)] * 300, 1.0)) == 300 * LEAST_RATE
    sender = Sender([b"x"] * 10, 0.0)
    for _ in Bounded(sender.pieces, 1 << 30, sender.clock):
        sender.now += 1000
