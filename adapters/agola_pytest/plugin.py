"""pytest fixtures of agola_core, loaded by entry point."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agola_core import DataManager


@pytest.fixture
def agola_store_types() -> list[str]:
    """Return the data types of `agola_store`; override it to choose your own."""
    return ["object"]


@pytest.fixture
def agola_store(tmp_path: Path, agola_store_types: list[str]) -> Iterator[DataManager]:
    """Yield a fresh embedded store below the test's temporary directory."""
    import agola_core  # noqa: PLC0415 - unused, the plugin costs nothing

    with agola_core.open(tmp_path / "agola_store", data_types=agola_store_types) as datamanager:
        yield datamanager
