"""Protocols registered with fsspec: `agola` for any storage; `agola+s3`, `agola+gs` and `agola+az` for buckets.

They are entry points of this package, so `fsspec.open("agola://KEY", storage="DIR")` works without importing it.
"""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

from agola_core.objectstorage.factory import open_storage
from agola_core.objectstorage.filesystem.files import standard_errors
from agola_core.objectstorage.filesystem.storage import StorageFileSystem


class AgolaFileSystem(StorageFileSystem):
    """A file system that opens a storage by URL and closes it with itself. It can be pickled, as dask requires.

    Args:
        storage: The storage's URL, or a directory (see `agola_core.open_storage`).

    Raises:
        OSError: The storage cannot be opened.
    """

    protocol = "agola"
    cachable = True

    def __init__(self, storage: str | Path, **options: Any) -> None:
        with standard_errors(str(storage).partition("?")[0]):
            opened = open_storage(storage)
        super().__init__(opened, **options)
        self._closing = weakref.finalize(self, opened.close)


class _BucketProtocol(AgolaFileSystem):
    """A whole bucket: `PROTOCOL://BUCKET/KEY?OPTIONS`, the options being those of the storage's URL."""

    scheme = ""

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = str(path)
        mark = f"{cls.protocol}://"
        if not text.startswith(mark):
            return super()._strip_protocol(path)
        return text.removeprefix(mark).partition("?")[0].partition("/")[2].rstrip("/")

    @classmethod
    def _get_kwargs_from_urls(cls, path: str) -> dict[str, Any]:
        where, separator, options = path.removeprefix(f"{cls.protocol}://").partition("?")
        return {"storage": f"{cls.scheme}://{where.partition('/')[0]}{separator}{options}"}


class S3Protocol(_BucketProtocol):
    """`agola+s3://BUCKET/KEY?endpoint=...`."""

    protocol = "agola+s3"
    scheme = "s3"


class GoogleProtocol(_BucketProtocol):
    """`agola+gs://BUCKET/KEY`."""

    protocol = "agola+gs"
    scheme = "gs"


class AzureProtocol(_BucketProtocol):
    """`agola+az://CONTAINER/KEY?account=...`."""

    protocol = "agola+az"
    scheme = "az"
