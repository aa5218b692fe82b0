"""The memtable is read without locks while a writer adds to it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from types import FrameType
from typing import Any

import pytest

from agola_core.datamanager.sstable import memtable as module
from agola_core.datamanager.sstable.memtable import Memtable
from agola_core.datamanager.types import Delete, Put

READS: dict[str, tuple[Callable[[Memtable], Any], Any]] = {
    "deletes": (lambda memtable: memtable.deletes(), 1),
    "count": (lambda memtable: memtable.count(["object", "type-5"]), 3),
    "data_types": (lambda memtable: memtable.data_types(), ["object"]),
    "find": (lambda memtable: memtable.find("object", "b", 2), module.Change(2, None, module.Change(1, b"1", None))),
    "scan": (lambda memtable: list(memtable.scan("object", "a", 2)), [("b", None), ("c", b"1")]),
}


@pytest.mark.parametrize("read", READS)
def test_a_writer_may_add_between_any_two_lines_of_a_reader(read: str) -> None:
    function, expected = READS[read]
    memtable = Memtable()
    memtable.apply(1, [Put("object", name, b"1") for name in "abc"])
    memtable.apply(2, [Delete("object", "b")])
    assert function(memtable) == expected
    counters, before = count(3), sys.gettrace()

    def write(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        if frame.f_code.co_filename != module.__file__:
            return None
        sys.settrace(None)
        counter = next(counters)
        memtable.apply(counter, [Put("object", f"new-{counter}", b""), Put(f"type-{counter}", "a", b"")])
        sys.settrace(write)
        return write

    sys.settrace(write)
    try:
        function(memtable)  # what it sees of the writer is not defined; that it ends well is
    finally:
        sys.settrace(before)
    assert next(counters) > 3, "the writer never came in between"
