"""Verifies whole data files: every byte against its checksums, and every entry against the indexes."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain

import msgspec

from agola_core.datamanager.sstable.file_lists import children
from agola_core.datamanager.sstable.files.block import decode_block
from agola_core.datamanager.sstable.files.block_cache import BlockCache
from agola_core.datamanager.sstable.files.datafile import (
    MAGIC,
    FileRef,
    Footer,
    decode_footer,
    encode_filter,
    key_hashes,
    read_tail,
)
from agola_core.datamanager.sstable.files.entries import entry_key, split_key
from agola_core.datamanager.sstable.manifest import Run, Totals
from agola_core.errors import CorruptionError, NotFoundError
from agola_core.objectstorage.port import ObjectReader, ObjectStorage
from agola_core.runtime.threads.parallel import parallel_map

_SPAN = 4 * 1024 * 1024
_SPANS_AHEAD = 2


class Finding(msgspec.Struct, frozen=True):
    """Something wrong with what is stored.

    Attributes:
        path: The path of the object, or the coordinator's key.
        offset: The first byte of the damaged part.
        message: What is wrong.
    """

    path: str
    offset: int
    message: str


def verify_run(storage: ObjectStorage, run: Run, path: str, verified: set[str], *, oldest: bool) -> Iterator[Finding]:
    """Yield what is wrong with a run: its files, their order, and the lists that name them.

    Args:
        storage: The store's object storage.
        run: The run.
        path: The path of the manifest that has it.
        verified: The paths of files that were verified already; this adds those that it reads. What a list names was
            verified with the list.
        oldest: Whether it is the manifest's last run.
    """
    before: FileRef | None = None
    totals, whole = Totals(), True
    for found in _files(storage, run.files, run.depth, verified):
        if not isinstance(found, FileRef):
            whole = False
            if found is not None:
                yield found
            continue
        if before is not None and entry_key(*before.last) >= entry_key(*found.first):
            yield Finding(found.path, 0, f"its entries do not follow those of {before.path}")
        if found.tombstones and oldest:
            yield Finding(found.path, 0, "a file of the oldest run has tombstones")
        before, totals = found, totals.plus(found)
        if found.path not in verified:
            verified.add(found.path)
            yield from verify_file(storage, found)
    if whole and totals != run.totals:
        yield Finding(path, 0, f"a run of {totals} has the totals {run.totals}")


def _files(
    storage: ObjectStorage, refs: Iterable[FileRef], depth: int, verified: set[str]
) -> Iterator[FileRef | Finding | None]:
    """Yield the data files below some files, and what is wrong with lists; None for a list that was verified."""
    for ref in refs:
        if not depth:
            yield ref
        elif ref.path in verified:
            yield None
        else:
            verified.add(ref.path)
            findings = list(verify_file(storage, ref))
            yield from findings
            if not findings:
                yield from _named(storage, ref, depth - 1, verified)


def _named(storage: ObjectStorage, ref: FileRef, depth: int, verified: set[str]) -> Iterator[FileRef | Finding | None]:
    try:
        yield from _files(storage, children(storage, BlockCache(0), ref, ref.path), depth, verified)
    except CorruptionError as error:
        yield _finding(error)


def verify_file(storage: ObjectStorage, ref: FileRef) -> Iterator[Finding]:
    """Read a data file to its end and yield what is wrong with it; nothing if it is intact.

    This checks its size, digest, magic and footer, every block's checksum, the order of the keys, the counts and the
    filter. It reads each byte once, and holds a few spans of the file in memory, and the filter.

    Args:
        storage: The store's object storage.
        ref: The manifest's reference to the file.
    """
    try:
        reader = storage.open_reader(ref.path)
        try:
            yield from _verify(reader, ref)
        finally:
            reader.close()
    except NotFoundError:
        yield Finding(ref.path, 0, "the data file is missing")


def _verify(reader: ObjectReader, ref: FileRef) -> Iterator[Finding]:
    try:
        tail = read_tail(reader, ref)
        footer = decode_footer(tail, ref)
    except CorruptionError as error:
        yield _finding(error)
        return
    spans = ((offset, min(_SPAN, ref.footer - offset)) for offset in range(0, ref.footer, _SPAN))

    def read(span: tuple[int, int]) -> bytes:
        return reader.read(*span)

    pieces = parallel_map(read, spans, workers=_SPANS_AHEAD) if reader.remote else map(read, spans)
    yield from _Verifier(ref, footer).run(_Pieces(chain(pieces, [tail])))


class _Pieces:
    """A stream that is read in pieces of given sizes and digested."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = bytearray()
        self._digest = hashlib.blake2b(digest_size=32)

    def take(self, length: int) -> bytes:
        while len(self._held) < length and (chunk := next(self._chunks, b"")):
            self._digest.update(chunk)
            self._held += chunk
        piece = bytes(self._held[:length])
        del self._held[:length]
        return piece

    def finish(self) -> str:
        for chunk in self._chunks:
            self._digest.update(chunk)
        return self._digest.hexdigest()


class _Verifier:
    """Checks everything before a file's footer."""

    def __init__(self, ref: FileRef, footer: Footer) -> None:
        self._ref = ref
        self._footer = footer
        self._last = b""
        self._entries = 0
        self._tombstones = 0
        self._hashes = array("Q")
        self._found = False

    def run(self, pieces: _Pieces) -> Iterator[Finding]:
        footer = self._footer
        if pieces.take(len(MAGIC)) != MAGIC:
            yield self._wrong(0, "the file does not begin as a data file does")
        for index, offset in enumerate(footer.offsets):
            try:
                problem = self._block(index, pieces.take(footer.lengths[index]))
            except CorruptionError as error:
                problem = error.message
            if problem:
                yield self._wrong(offset, problem)
        digest = pieces.finish()
        if self._found:
            return  # whatever else does not match follows from that
        yield from self._totals()
        if digest != self._ref.digest:
            yield self._wrong(0, "the digest of the whole file does not match")

    def _block(self, index: int, stored: bytes) -> str:
        """Check a block and return what is wrong with it, or ""."""
        footer = self._footer
        last_key = footer.last_keys[index]
        block = decode_block(
            stored,
            footer.codings[index],
            footer.crcs[index],
            last_key,
            self._ref.path,
            footer.offsets[index],
            self._ref.largest_block,
        )
        keys: list[bytes] = []
        for key, value in block.entries():
            if index == 0 and not keys and key != entry_key(*self._ref.first):
                return "the first key is not the one that the manifest names"
            if key <= self._last:
                return f"key {key!r} does not follow {self._last!r}"
            try:
                split_key(key)
            except UnicodeDecodeError:
                return f"key {key!r} is not UTF-8"
            self._last = key
            self._tombstones += value is None
            keys.append(key)
        self._entries += len(keys)
        if footer.filter:
            self._hashes.extend(key_hashes(keys))
        return "" if self._last == last_key else "its last key is not the one that the footer names"

    def _totals(self) -> Iterator[Finding]:
        ref, footer = self._ref, self._footer
        if (self._entries, self._tombstones) != (ref.entries, ref.tombstones):
            yield self._wrong(
                0,
                f"{self._entries} entries, {self._tombstones} of them tombstones, instead of "
                f"{ref.entries} and {ref.tombstones}",
            )
        if footer.filter and encode_filter(self._hashes) != footer.filter:
            yield self._wrong(ref.footer, "the filter is not that of the file's keys")

    def _wrong(self, offset: int, message: str) -> Finding:
        self._found = True
        return Finding(self._ref.path, offset, message)


def _finding(error: CorruptionError) -> Finding:
    return Finding(error.path, error.offset, error.message)
