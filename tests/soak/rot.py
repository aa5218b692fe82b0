"""R9: stored bytes are flipped, cut, deleted or lengthened; each is found, by its path, before it is used."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from agola_core import Durability
from agola_core.errors import AgolaError
from tests.soak.processes.kill import MEMORY, EmbeddedStore, work
from tests.soak.trial import Campaign, Say, Violation, run_child

DAMAGES = 12


def trial(seed: int) -> Counter[str]:
    """Make a store, and damage one of its objects after the other.

    Raises:
        Violation: A damage was not found.
    """
    rng = random.Random(seed)
    directory = Path(tempfile.mkdtemp(prefix="agola-soak-", dir=MEMORY))
    counts: Counter[str] = Counter()
    try:
        store = EmbeddedStore(directory)

        def make(say: Say) -> None:
            work(store, Durability.STORAGE, 0, {}, seed, lambda _: None)
            with store.open(Durability.STORAGE, 1) as dm:
                dm.checkpoint(force=True)
                dm.collect_garbage()
                say([str(finding) for finding in dm.verify()])

        ended = run_child(make)
        if ended.said != [[]]:
            raise Violation(f"seed {seed}: a whole store is not whole: {ended.said}")
        files = _needed(directory / "storage/data")
        for _ in range(DAMAGES):
            file = rng.choice(files)
            whole = file.read_bytes()
            kind = _damage(rng, file, whole)
            ended = run_child(lambda say: _look(store, file.name, kind == "delete", say))  # noqa: B023 - it runs at once
            if file.exists() and file.read_bytes() == whole:
                counts["repaired by opening"] += 1  # the coordinator knows what stood there
            elif ended.said != ["found"]:
                raise Violation(f"seed {seed}: {kind} of {file.relative_to(directory)} was not found: {ended.said}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(whole)
            counts[kind] += 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return counts


def _needed(root: Path) -> list[Path]:
    """Return the objects that the newest state needs; what only older lineages or feeds read is not looked at."""
    newest = max(path.parent for path in (root / "lineages").glob("*/active.json"))
    manifest = max((newest / "manifests").iterdir())
    files = [root / "store.json", newest / "coordinator.json", *root.glob("data/*"), *newest.glob("wals/*"), manifest]
    return sorted(path for path in files if path.is_file())


def _damage(rng: random.Random, file: Path, whole: bytes) -> str:
    kind = rng.choice(["flip", "cut", "lengthen", "delete"])
    if kind == "delete" and file.name == "coordinator.json":
        kind = "flip"  # where it is missing, an older release has left it out
    match kind:
        case "flip":
            damaged = bytearray(whole)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            file.write_bytes(damaged)
        case "cut":
            file.write_bytes(whole[: rng.randrange(len(whole))])
        case "lengthen":
            file.write_bytes(whole + rng.randbytes(rng.randint(1, 9)))
        case _:
            file.unlink()
    return kind


def _look(store: EmbeddedStore, name: str, gone: bool, say: Say) -> None:
    try:
        with store.open(Durability.STORAGE, 2) as dm:
            findings = dm.verify()
    except AgolaError as error:
        say("found" if name in str(error) or "marker" in str(error) else f"an error that does not name it: {error}")
        return
    # A batch that is gone shows as a gap: its neighbour, or the record of what is in storage, is named.
    named = any(name in finding.path or gone for finding in findings)
    say("found" if named else [str(finding) for finding in findings])


CAMPAIGN = Campaign("rot", "damages of stored objects, each to be found by its path", trial)
