"""Storages as fsspec file systems, and the protocols under which fsspec finds them."""

from agola_core.objectstorage.filesystem.protocols import (
    AgolaFileSystem,
    AzureProtocol,
    GoogleProtocol,
    S3Protocol,
)
from agola_core.objectstorage.filesystem.storage import StorageFileSystem

__all__ = ["AgolaFileSystem", "AzureProtocol", "GoogleProtocol", "S3Protocol", "StorageFileSystem"]
