"""The store that a command's options name."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

import agola_core
from agola_cli.options.common import bundled
from agola_cli.options.directories import data_dir_option, default_data_dir, existing_data_dir
from agola_core.address import StoreAddress
from agola_core.datamanager import DataManager, Options
from agola_core.objectstorage.factory import check_configured

QUIET = Options(background=False)


class StoreOptions(msgspec.Struct, frozen=True):
    """The store that a command's options name.

    Attributes:
        data_dir: A data directory.
        storage: A storage URL, instead of the directory's storage.
        coordinator: A coordinator URL, instead of the directory's coordinator.
    """

    data_dir: Path | None = None
    storage: str | None = None
    coordinator: str | None = None

    def open(self, *, read_only: bool = False) -> DataManager:
        """Open the store.

        Args:
            read_only: For a command that only reads: a store that cannot be written to is opened for reading.

        Raises:
            click.UsageError: There is no store, or only one half is named.
        """
        address = self.address()
        return agola_core.open(address, options=QUIET, read_only=read_only and address.is_read_only())

    def address(self, *, recover: bool = False) -> StoreAddress:
        """Return the address of an existing store, without a directory if both of its parts are named by URLs.

        Args:
            recover: Recover the store: on a new machine only its storage exists.

        Raises:
            click.UsageError: There is no store, or only one half is named.
        """
        if recover and self.data_dir is not None and self.storage is not None:
            return StoreAddress(self.data_dir, self.storage, self.coordinator)
        if self.data_dir is None and self.storage and self.coordinator:
            return StoreAddress(None, self.storage, self.coordinator)
        if self.data_dir is None and (self.storage or self.coordinator) and not default_data_dir(Path.cwd()).is_dir():
            given, missing = ("storage", "coordinator") if self.storage else ("coordinator", "storage")
            raise click.UsageError(f"--{given} is half of a store: name the other by --{missing} or --data-dir")
        return self.used_address()

    def used_address(self) -> StoreAddress:
        """Return the address of an existing store with its data directory; its parts may be elsewhere.

        Raises:
            click.UsageError: There is no store.
        """
        chosen = StoreAddress(existing_data_dir(self.data_dir), self.storage, self.coordinator)
        if chosen.lacks_storage:
            raise click.UsageError(
                f"no store in {chosen.directory}: nothing has run there, or name another with --data-dir"
            )
        return chosen


storage_option = click.option(
    "--storage",
    metavar="URL",
    callback=lambda _context, _option, url: url and check_configured(url),
    envvar="AGOLA_STORAGE",
    show_envvar=True,
    help="The object storage, instead of the data directory's: posix:///DIR, s3://BUCKET/PREFIX, gs:// or az://.",
)

coordinator_option = click.option(
    "--coordinator",
    metavar="URL",
    envvar="AGOLA_COORDINATOR",
    show_envvar=True,
    help="The coordinator, instead of the data directory's: etcd://HOST:2379,HOST:2379/PREFIX.",
)

store_options = bundled("store", StoreOptions, data_dir_option, storage_option, coordinator_option)
