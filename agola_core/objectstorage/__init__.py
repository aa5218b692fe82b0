"""Object storage: whole objects under text keys on posix, posixflat or s3.

Imports errors and fault points; the datamanager and the runservice stand on it.
"""

from agola_core.objectstorage.factory import open_storage
from agola_core.objectstorage.port import ObjectInfo, ObjectReader, ObjectStorage, check_portable, is_portable

__all__ = ["ObjectInfo", "ObjectReader", "ObjectStorage", "check_portable", "is_portable", "open_storage"]
