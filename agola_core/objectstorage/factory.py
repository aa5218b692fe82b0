"""Opens the storage backend that a URL names; the only place that knows all backends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from agola_core.address import check_directory
from agola_core.errors import BadRequestError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.objectstorage.read_only import ReadOnlyStorage
from agola_core.runtime.lazy import LazyModule

if TYPE_CHECKING:
    import fsspec
else:
    fsspec = LazyModule("fsspec")


def open_storage(
    url: str | Path | fsspec.AbstractFileSystem, root: str = "", *, configured: bool = False, read_only: bool = False
) -> ObjectStorage:
    """Open the object storage at a URL, or on an fsspec file system.

    Args:
        url: A path or `posix:///DIR`: a directory; `posixflat:///DIR`: a directory with escaped names;
            `s3://BUCKET/PREFIX?endpoint=...`: a bucket (`s3.url` has the options); `gs://BUCKET/PREFIX` and
            `az://CONTAINER/PREFIX?account=...`: Google's and Azure's (`cloud.url`). Or an fsspec file system, which
            must pass a probe that writes below `root` for a moment.
        root: The directory of a file system, or a bucket and a prefix; for file systems alone.
        configured: The URL comes from a service's configuration, which may not choose posixflat.
        read_only: Whether it is only read: then nothing is made where it lies, and what would change it is refused.

    Raises:
        BadRequestError: The URL names no backend, or what it names does not exist; or a file system does not do
            what a storage needs: says what.
        ForbiddenError: The backend denies access.
        UnavailableError: The backend cannot be reached.
    """
    if not isinstance(url, str | os.PathLike):
        from agola_core.objectstorage.given.probe import open_given  # noqa: PLC0415 - load what is used

        return _limited(open_given(url, root), read_only)
    if root:
        raise BadRequestError("a root belongs to an fsspec file system; a URL has its prefix in itself")
    if configured:
        check_configured(str(url))
    scheme, separator, rest = str(url).partition("://")
    if not separator:
        scheme, rest = "posix", str(check_directory(url, "storage"))
    if scheme in {"posix", "posixflat"}:
        from agola_core.objectstorage.posix.storage import PosixFlatStorage, PosixStorage  # noqa: PLC0415 - load what is used

        check_directory(rest, "storage")
        kind = PosixStorage if scheme == "posix" else PosixFlatStorage
        return _limited(kind(rest, create=not read_only), read_only)
    if scheme == "s3":
        from agola_core.objectstorage.s3.storage import S3Storage  # noqa: PLC0415 - load what is used

        return _limited(S3Storage.from_url(str(url)), read_only)
    if scheme in {"gs", "az"}:
        try:
            from agola_core.objectstorage.cloud.storage import CloudStorage  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            extra = "gcs" if scheme == "gs" else "azure"
            raise BadRequestError(
                f"storage at {scheme}:// needs the extra {extra}: pip install 'agola-core[{extra}]'"
            ) from error
        return _limited(CloudStorage.from_url(str(url)), read_only)
    raise BadRequestError(
        f"storage {scheme}://: expected a path, posix:///DIR, posixflat:///DIR, s3://, gs:// or az://BUCKET/PREFIX"
    )


def _limited(storage: ObjectStorage, read_only: bool) -> ObjectStorage:
    return ReadOnlyStorage(storage) if read_only else storage


def check_configured(url: str) -> str:
    """Return a storage URL that a service's configuration or a command's option may name.

    Raises:
        BadRequestError: It names posixflat, which is for the library alone.
    """
    if url.partition("://")[0] == "posixflat":
        raise BadRequestError("storage posixflat is for the library; configure posix, s3, gs or az")
    return url
