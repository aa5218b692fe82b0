"""Object storage: whole objects under text keys, in a directory or in a bucket of a cloud.

Depends only on errors and runtime helpers; the datamanager and the runservice are built on it.
"""

from agola_core.objectstorage.factory import open_storage
from agola_core.objectstorage.port import ObjectInfo, ObjectReader, ObjectStorage, check_portable, is_portable

__all__ = ["ObjectInfo", "ObjectReader", "ObjectStorage", "check_portable", "is_portable", "open_storage"]
