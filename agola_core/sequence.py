"""Sequence numbers of WALs; their text form sorts in the order of the log.

A sequence is an epoch and a counter. Its text is Agola's: each part in base 32 (0-9a-v), zero-padded to 13
characters, joined by "-", for example ``0000001ekg0a0-0000000000001``. Unlike Agola's, the epoch is not a timestamp:
it increases by one each time a store is created, recovered or imported, so a clock that steps back does no harm.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from agola_core.errors import BadRequestError

_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_WIDTH = 13
_TEXT = re.compile(rf"([{_DIGITS}]{{{_WIDTH}}})-([{_DIGITS}]{{{_WIDTH}}})")
_LIMIT = 1 << 64


class Sequence(NamedTuple):
    """A position in the total order of a log.

    Attributes:
        epoch: Starts at 1; increases with every creation, recovery and import of the store.
        counter: Starts at 1 within an epoch; 0 is the position before the first WAL.

    Example:
        >>> str(Sequence(1, 33))
        '0000000000001-0000000000011'
        >>> Sequence.parse("0000000000001-0000000000011").next()
        Sequence(epoch=1, counter=34)
    """

    epoch: int
    counter: int

    def __str__(self) -> str:
        """Return the 27 characters that sort as the sequence does."""
        return _epoch_prefix(self.epoch) + _encode(self.counter)

    def next(self, step: int = 1) -> Sequence:
        """Return the sequence `step` places on, in the same epoch."""
        return Sequence(self.epoch, self.counter + step)

    @classmethod
    def parse(cls, text: str) -> Sequence:
        """Parse the text form of a sequence.

        Args:
            text: A result of `str()` on a sequence.

        Raises:
            BadRequestError: The text is not a sequence.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise BadRequestError(f"not a sequence: {text[:64]!r}")
        epoch, counter = int(match[1], 32), int(match[2], 32)
        if epoch >= _LIMIT or counter >= _LIMIT:
            raise BadRequestError(f"sequence out of range: {text!r}")
        return cls(epoch, counter)


def texts(epoch: int, first: int, count: int) -> list[str]:
    """Return the text forms of consecutive sequences; the same as `str()` of each, but faster.

    Args:
        epoch: Their epoch.
        first: Counter of the first one.
        count: Number of sequences.
    """
    prefix = _epoch_prefix(epoch)
    return [prefix + _encode(counter) for counter in range(first, first + count)]


@lru_cache(maxsize=16)
def _epoch_prefix(epoch: int) -> str:
    return f"{_encode(epoch)}-"


_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]


def _encode(number: int) -> str:
    if number < 1 << 20:
        return "000000000" + _PAIRS[number >> 10] + _PAIRS[number & 1023]
    pairs = []
    while number:
        pairs.append(_PAIRS[number & 1023])
        number >>= 10
    return "".join(reversed(pairs)).rjust(_WIDTH, "0")[-_WIDTH:]
