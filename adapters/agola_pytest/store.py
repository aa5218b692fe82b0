"""Stores for tests: embedded, fresh, closed with the test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from agola_core import DataManager


class StoreFactory(Protocol):
    """Makes stores; `agola_store_factory` is one."""

    def __call__(self, name: str = ..., *, data_types: Sequence[str] | None = ..., **arguments: Any) -> DataManager:
        """Open a store.

        Args:
            name: The directory below the test's temporary one; the same name opens the same store again.
            data_types: Its types; by default those of `agola_store_types`.
            arguments: As `agola_core.open` takes them.
        """


def make_factory(directory: Path, data_types: Sequence[str], stack: ExitStack) -> StoreFactory:
    """Return a factory of stores below a directory, which a stack closes."""

    def make(name: str = "store", *, data_types: Sequence[str] | None = None, **arguments: Any) -> DataManager:
        import agola_core  # noqa: PLC0415 - unused, the plugin costs nothing
        from agola_core.address import check_directory  # noqa: PLC0415

        check_directory(name, "name")
        wanted = data_types if data_types is not None else default
        store: DataManager = agola_core.open(directory / name, data_types=wanted, **arguments)
        return stack.enter_context(store)

    default = data_types
    return make


@pytest.fixture(scope="session")
def agola_store_types() -> list[str]:
    """Return the data types of the stores; override it to choose your own."""
    return ["object"]


@pytest.fixture
def agola_store_factory(agola_directory: Path, agola_store_types: list[str]) -> Iterator[StoreFactory]:
    """Yield what opens embedded stores below the test's temporary directory; all are closed at the test's end."""
    with ExitStack() as stack:
        yield make_factory(agola_directory / "agola", agola_store_types, stack)


@pytest.fixture
def agola_store(agola_store_factory: StoreFactory) -> DataManager:
    """Return a fresh embedded store."""
    return agola_store_factory()


@pytest.fixture(scope="session")
def agola_session_store_factory(agola_session_directory: Path, agola_store_types: list[str]) -> Iterator[StoreFactory]:
    """Yield what opens embedded stores that live as long as the session (of one worker, under xdist)."""
    with ExitStack() as stack:
        yield make_factory(agola_session_directory, agola_store_types, stack)


@pytest.fixture(scope="session")
def agola_session_store(agola_session_store_factory: StoreFactory) -> DataManager:
    """Return one embedded store for all tests of a session (of one worker, under xdist)."""
    return agola_session_store_factory("session-store")
