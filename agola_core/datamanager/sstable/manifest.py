"""Manifests: each names the data files of one checkpoint. Numbered, immutable and checksummed."""

from __future__ import annotations

import enum
from datetime import datetime

import msgspec

from agola_core.datamanager.format.checksummed import decode_checksummed, encode_checksummed
from agola_core.datamanager.sstable.files.datafile import FileRef
from agola_core.encoding.decoding import DECODE_ERRORS, newer
from agola_core.errors import AgolaError, CorruptionError, FormatError, NotFoundError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.sequence import Sequence

FORMAT = 2
"""The newest format that is read, and that of a manifest with a run in lists; any other one is written in format 1."""

_DEEPEST = 16


class Origin(enum.StrEnum):
    """Why a manifest was written."""

    CREATE = "create"
    CHECKPOINT = "checkpoint"
    RECOVERY = "recovery"
    IMPORT = "import"
    REPAIR = "repair"


class Totals(msgspec.Struct, frozen=True):
    """What a run's data files have together.

    Attributes:
        files: How many they are.
        size: Their bytes.
        entries: Their entries, tombstones among them.
        tombstones: How many of them are deletes.
        raw: Bytes of the entries before compression; of a file that does not tell, its bytes.
    """

    files: int = 0
    size: int = 0
    entries: int = 0
    tombstones: int = 0
    raw: int = 0

    def plus(self, file: FileRef) -> Totals:
        """Return the totals with a file more."""
        return Totals(
            self.files + 1,
            self.size + file.size,
            self.entries + file.entries,
            self.tombstones + file.tombstones,
            self.raw + (file.raw or file.size),
        )


class Run(msgspec.Struct, frozen=True, omit_defaults=True):
    """A sorted set of entries, in files that follow each other (`file_lists` reads and writes those of any depth).

    Attributes:
        files: Its data files; in a run of some depth, the lists that name them.
        depth: How many lists stand above each data file.
        listed: The totals of a run of some depth.
    """

    files: tuple[FileRef, ...]
    depth: int = 0
    listed: Totals | None = msgspec.field(name="totals", default=None)

    @property
    def totals(self) -> Totals:
        """What its data files have together."""
        if self.listed is not None:
            return self.listed
        totals = Totals()
        for file in self.files:
            totals = totals.plus(file)
        return totals

    @property
    def size(self) -> int:
        """Bytes of its entries before compression: what a merge has to take in hand, as for a delta in memory."""
        return self.totals.raw

    @property
    def entries(self) -> int:
        """How many entries it has, tombstones among them."""
        return self.totals.entries

    @property
    def tombstones(self) -> int:
        """How many of its entries are deletes."""
        return self.totals.tombstones


class Imported(msgspec.Struct, frozen=True):
    """Where an imported state is from.

    Attributes:
        store: The id of the store that was exported.
        sequence: Its newest WAL in the export.
    """

    store: str
    sequence: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpointed state of a store.

    Attributes:
        number: Rises with every manifest of the store.
        epoch: Of the lineage.
        lineage: The history it belongs to.
        position: The text of `sequence`.
        created: When it was made; for information, it orders nothing.
        data_types: Every type that it may hold, sorted.
        runs: Newest first; the first one that has a key decides. The last, oldest one has no tombstones.
        origin: Why it was written.
        imported: The store and WAL that an import began with.
        replaces: The path of the damaged manifest that the last repair replaced by one of the same state.
        format: The version of this record.
    """

    number: int
    epoch: int
    lineage: str
    position: str = msgspec.field(name="sequence")
    created: datetime
    data_types: tuple[str, ...]
    runs: tuple[Run, ...]
    origin: Origin
    imported: Imported | None = None
    replaces: str = ""
    format: int = 1

    @property
    def sequence(self) -> Sequence:
        """The newest WAL that it includes."""
        return Sequence.parse(self.position)

    @property
    def size(self) -> int:
        """The bytes of all data files."""
        return sum(run.totals.size for run in self.runs)

    @property
    def data_files(self) -> int:
        """How many data files it has."""
        return sum(run.totals.files for run in self.runs)

    def tops(self) -> list[str]:
        """Return the paths of the files that it names itself: data files, and lists of others."""
        return [file.path for run in self.runs for file in run.files]


class _Version(msgspec.Struct):
    format: int = 0


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest."""
    lists = any(run.depth for run in manifest.runs)
    return encode_checksummed(msgspec.structs.replace(manifest, format=FORMAT if lists else 1))


def decode_manifest(data: bytes, path: str) -> Manifest:
    """Return a manifest from its bytes.

    Raises:
        CorruptionError: The bytes are not what was written.
        FormatError: Another release wrote it, in a format that this one does not know.
    """
    body = decode_checksummed(data, path)
    try:
        version = msgspec.json.decode(body, type=_Version).format
        if version > FORMAT:
            raise newer(path, version, FORMAT)
        if version < 1:
            raise FormatError(f"{path}: manifest format {version} is unknown; this release knows {FORMAT}")
        manifest = msgspec.json.decode(body, type=Manifest)
        Sequence.parse(manifest.position)
        if any(not 0 <= run.depth <= _DEEPEST or (run.depth > 0) != (run.listed is not None) for run in manifest.runs):
            raise CorruptionError("a run's depth does not fit its totals", path=path)
    except (*DECODE_ERRORS, AgolaError) as error:
        if isinstance(error, FormatError):
            raise
        raise CorruptionError(f"not a manifest: {error}", path=path) from error
    return manifest


def read_manifest(storage: ObjectStorage, path: str) -> Manifest:
    """Return the manifest at a path.

    Raises:
        CorruptionError: It is missing or damaged.
    """
    try:
        data = storage.read(path)
    except NotFoundError as error:
        raise CorruptionError("the manifest is missing", path=path) from error
    return decode_manifest(data, path)


def write_manifest(storage: ObjectStorage, path: str, manifest: Manifest) -> None:
    """Store a manifest."""
    storage.write(path, encode_manifest(manifest))
