"""R6: what many writers and readers saw at the same time is one order that time allows (strict serializability).

Commits carry their place in the log and the revisions of their change groups, so no search is needed: the order is
known, and each record is held against it. Every group has one object, and every write puts a value of its own there,
behind a token that was read with the value before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple


class Write(NamedTuple):
    """A write that was acknowledged.

    Attributes:
        start: When it was called, by a clock that all processes share.
        end: When it returned.
        group: Its change group.
        seen: The group's revision in its token.
        sequence: Its place in the log.
        revision: The group's revision after it.
        value: What it put.
    """

    start: float
    end: float
    group: str
    seen: int
    sequence: str
    revision: int
    value: str


class Read(NamedTuple):
    """A read: the revision of the group in its token, and the value."""

    start: float
    end: float
    group: str
    revision: int
    value: str


class Refusal(NamedTuple):
    """A write that was told "conflict"; its token had the group at `seen`."""

    start: float
    end: float
    group: str
    seen: int
    value: str


class Unknown(NamedTuple):
    """A write whose outcome its caller was not told; it may show or not."""

    start: float
    group: str
    seen: int
    value: str


Record = Write | Read | Refusal | Unknown


def violations(history: Iterable[Record]) -> list[str]:
    """Return what of a history no one order explains; none when it is strictly serializable."""
    records = list(history)
    writes = sorted((item for item in records if isinstance(item, Write)), key=lambda item: item.sequence)
    found = [*_check_order(writes)]
    chains: dict[str, list[Write]] = defaultdict(list)
    for write in writes:
        chains[write.group].append(write)
    unknown = {item.value: item for item in records if isinstance(item, Unknown)}
    refused = {item.value for item in records if isinstance(item, Refusal)}
    for group, chain in chains.items():
        found += _check_chain(group, chain, doubtful=any(item.group == group for item in unknown.values()))
    for item in records:
        if isinstance(item, Read):
            found += _check_read(item, chains[item.group], unknown, refused)
        elif isinstance(item, Refusal):
            found += _check_refusal(item, chains[item.group], unknown)
    return found


def _check_order(writes: list[Write]) -> Iterable[str]:
    earliest_end, earliest = float("inf"), None
    for write in reversed(writes):
        if earliest is not None and earliest_end < write.start:
            yield f"{earliest} had ended before {write} began, and stands after it in the log"
        if write.end < earliest_end:
            earliest_end, earliest = write.end, write
    for before, after in pairwise(writes):
        if before.sequence == after.sequence:
            yield f"two writes at {before.sequence}"


def _check_chain(group: str, chain: list[Write], *, doubtful: bool) -> Iterable[str]:
    revision = 0
    for write in chain:
        if write.seen != revision and not (doubtful and write.seen > revision):
            yield f"{group}: {write} saw revision {write.seen}, and stands after {revision}: an update was lost"
        if write.revision <= write.seen:
            yield f"{group}: {write} did not move the group"
        revision = write.revision


def _check_read(read: Read, chain: list[Write], unknown: dict[str, Unknown], refused: set[str]) -> Iterable[str]:
    """Check a read. Its value may be newer than its token, which then refuses a write; never the other way round."""
    if read.value in refused:
        yield f"{read} shows a write that was refused"
    source = next((write for write in chain if write.value == read.value), None)
    if source is None and read.value and read.value not in unknown and read.value not in refused:
        yield f"{read} shows what nobody wrote"
    if source is not None and source.start > read.end:
        yield f"{read} had ended before {source} began"
    if read.value in unknown:
        return
    shown = source.revision if source is not None else 0
    if shown < read.revision:
        yield f"{read} has a token that is newer than its value, of revision {shown}"
    for write in chain:
        if write.end < read.start and write.revision > shown:
            yield f"{read} does not see {write}, which had ended before"


def _check_refusal(refusal: Refusal, chain: list[Write], unknown: dict[str, Unknown]) -> Iterable[str]:
    moved = any(write.revision > refusal.seen and write.start < refusal.end for write in chain)
    doubtful = any(item.group == refusal.group and item.start < refusal.end for item in unknown.values())
    if not moved and not doubtful:
        yield f"{refusal}: nobody had changed the group"
