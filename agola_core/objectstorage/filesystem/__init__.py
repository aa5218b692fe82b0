"""fsspec file systems on top of any storage, and the protocols registered with fsspec."""

from agola_core.objectstorage.filesystem.protocols import (
    AgolaFileSystem,
    AzureProtocol,
    GoogleProtocol,
    S3Protocol,
)
from agola_core.objectstorage.filesystem.storage import StorageFileSystem

__all__ = ["AgolaFileSystem", "AzureProtocol", "GoogleProtocol", "S3Protocol", "StorageFileSystem"]
