"""Opens a coordinator by URL; the only place that chooses a backend."""

from __future__ import annotations

from agola_core.address import no_directory
from agola_core.coordinator.port import Coordinator
from agola_core.coordinator.read_only import ReadOnly
from agola_core.errors import BadRequestError


def open_coordinator(url: str, *, read_only: bool = False) -> Coordinator:
    """Open the coordinator at a URL.

    Args:
        url: A path, or `sqlite:///PATH`, for the embedded one; `etcd://HOST:PORT,HOST:PORT/PREFIX?...` for an etcd
            cluster (see `agola_core.coordinator.etcd.settings.parse_url` for the parameters).
        read_only: Create nothing, and refuse every change.

    Raises:
        BadRequestError: The URL is malformed, names no known backend, or the backend's extra is not installed.
        UnavailableError: The backend cannot be reached.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "sqlite", url
    if scheme == "sqlite" and rest and no_directory(rest) is None:
        from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator  # noqa: PLC0415 - load what is used

        if read_only:
            from agola_core.coordinator.sqlite.read_only import ReadOnlySQLiteCoordinator  # noqa: PLC0415

            return ReadOnlySQLiteCoordinator(rest)
        return SQLiteCoordinator(rest)
    if scheme == "etcd" and rest:
        try:
            from agola_core.coordinator.etcd.coordinator import EtcdCoordinator  # noqa: PLC0415 - load what is used
        except ModuleNotFoundError as error:
            raise BadRequestError(
                f"an etcd coordinator needs the extra: pip install 'agola-core[etcd]' ({error.name} is missing)"
            ) from error

        if read_only:

            class ReadOnlyEtcdCoordinator(ReadOnly, EtcdCoordinator):
                """The reading half of a coordinator on etcd."""

            return ReadOnlyEtcdCoordinator(url)
        return EtcdCoordinator(url)
    raise BadRequestError(f"coordinator {url!r}: expected a path, sqlite:///PATH or etcd://HOST:PORT/PREFIX")
