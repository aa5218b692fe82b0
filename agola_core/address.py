"""Addresses of stores: a directory, or the URLs of an object storage and a coordinator; how they are read and refused.

A URL given in the place of a directory is refused everywhere: a directory of that name would be created.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from agola_core.errors import BadRequestError, NotFoundError

COORDINATOR_FILE = "coordinator.db"
STORAGE_DIRECTORY = "storage"

GIVEN_STORAGE = "given://"
"""The place of a storage URL in an address whose storage is open already."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # one slash: a `Path` has made one of two
_NAMED_BY = {
    **dict.fromkeys(("s3", "gs", "az", "posix", "posixflat"), "an object storage is named by storage= (--storage)"),
    **dict.fromkeys(("etcd", "sqlite"), "a coordinator is named by coordinator= (--coordinator)"),
    **dict.fromkeys(("http", "https"), "a running service is named by --url"),
}


class StoreAddress(msgspec.Struct, frozen=True):
    """Where a store's two parts are: the object storage and the coordinator.

    Attributes:
        directory: A directory that holds the parts that are not named by a URL: an embedded store.
        storage: A storage URL; None for the directory's.
        coordinator: A coordinator URL; None for the directory's.
    """

    directory: Path | None = None
    storage: str | None = None
    coordinator: str | None = None

    @classmethod
    def of(
        cls,
        place: str | os.PathLike[str] | StoreAddress | None,
        storage: str | None = None,
        coordinator: str | None = None,
        *,
        argument: str = "path",
    ) -> StoreAddress:
        """Return the address that a caller's arguments name.

        Args:
            place: A directory, or the whole address.
            storage: A storage URL, instead of the directory's.
            coordinator: A coordinator URL, instead of the directory's.
            argument: Name of the argument that is the place, for errors.

        Raises:
            BadRequestError: The directory is a URL, or cannot be a path; or URLs are given beside a whole address.
        """
        if isinstance(place, StoreAddress):
            if storage is not None or coordinator is not None:
                raise BadRequestError("the address names the storage and the coordinator already")
            return place
        if coordinator is not None and not isinstance(coordinator, str):
            raise BadRequestError(f"coordinator is a URL, not {coordinator!r}"[:200])
        return cls(check_directory(place, argument) if place is not None else None, storage, coordinator)

    @property
    def data_directory(self) -> Path:
        """The directory, which a service needs for more than the store.

        Raises:
            BadRequestError: None is named.
        """
        if self.directory is None:
            raise BadRequestError("name a data directory: a service keeps more there than the store")
        return self.directory

    @property
    def storage_url(self) -> str:
        """The object storage.

        Raises:
            BadRequestError: Neither a directory nor a storage is named.
        """
        if self.storage:
            return self.storage
        if self.directory is None:
            raise BadRequestError("name the store by a directory, or by its storage")
        return str(self.directory / STORAGE_DIRECTORY)

    @property
    def coordinator_url(self) -> str:
        """The coordinator.

        Raises:
            BadRequestError: Neither a directory nor a coordinator is named.
        """
        if self.coordinator:
            return self.coordinator
        if self.directory is None:
            raise BadRequestError("name the store by a directory, or by both a storage and a coordinator")
        return str(self.directory / COORDINATOR_FILE)

    @property
    def known_coordinator(self) -> str | None:
        """The coordinator; None when none is named and the directory has none."""
        if self.coordinator is None and (self.directory is None or not (self.directory / COORDINATOR_FILE).is_file()):
            return None
        return self.coordinator_url

    @property
    def lacks_storage(self) -> bool:
        """Whether the storage is to be in the directory, and is not there."""
        return self.directory is not None and self.storage is None and not Path(self.storage_url).is_dir()

    def check_existing(self) -> None:
        """Raise `NotFoundError` for a directory that has no store, before anything is created in it."""
        if self.lacks_storage:
            raise NotFoundError(f"there is no store in {str(self.directory)!r}; to make one, name its data_types")

    def is_read_only(self) -> bool:
        """Return whether this process can read the store, but not write to it, judging by its files' permissions."""
        places = [_local_path(self.storage, "posix://", "posixflat://"), _local_path(self.coordinator, "sqlite://")]
        if self.directory is not None:
            places += [self.directory / STORAGE_DIRECTORY] if self.storage is None else []
            places += [self.directory, self.directory / COORDINATOR_FILE] if self.coordinator is None else []
        return any(place.exists() and not os.access(place, os.W_OK) for place in places if place is not None)


def check_directory(path: str | os.PathLike[str], argument: str) -> Path:
    """Return a directory's path.

    Args:
        path: As the caller gave it.
        argument: Name of the argument, for the message.

    Raises:
        BadRequestError: It is a URL or cannot be a path; names the argument, and the right one for a URL.
    """
    if not isinstance(path, str | os.PathLike):
        raise BadRequestError(f"{argument} is a path, not {path!r}"[:200])
    reason = no_directory(path)
    if reason is not None:
        raise BadRequestError(f"{argument} {os.fspath(path)!r} {reason}")
    return Path(path)


def no_directory(path: str | os.PathLike[str]) -> str | None:
    """Return why a path cannot name a directory; None if it can."""
    text = os.fspath(path)
    if not text or "\0" in text:
        return "names no directory"
    found = _URL.match(text)
    if found is None:
        return None
    advice = _NAMED_BY.get(found[1].lower(), f"write a directory of that name as {os.path.abspath(text)!r}")  # noqa: PTH100
    return f"is a URL where a directory belongs: {advice}"


def _local_path(url: str | None, *schemes: str) -> Path | None:
    """Return the path of a backend on this machine; None for any other URL."""
    if url is None or ("://" in url and not url.startswith(schemes)):
        return None
    return Path(url.partition("://")[2] or url)
