"""What several unit tests use."""

from datetime import UTC, datetime

import pytest

from agola_core.datamanager.sstable.manifest import Manifest, Origin, Run
from agola_core.sequence import Sequence


@pytest.fixture(scope="session")
def manifest_of():
    """Return a manifest of runs, newest first, each given by its files."""

    def build(runs):
        return Manifest(
            number=1,
            epoch=1,
            lineage="0123456789abcdef",
            position=str(Sequence(1, 0)),
            created=datetime(2019, 7, 1, tzinfo=UTC),
            data_types=("note", "other"),
            runs=tuple(Run(tuple(files)) for files in runs),
            origin=Origin.CHECKPOINT,
        )

    return build
