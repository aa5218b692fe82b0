"""Paths of logs, workspace archives, caches, secrets and sources in object storage, as Agola has them."""

from __future__ import annotations

import hashlib
import re
import string

from agola_core.errors import BadRequestError
from agola_core.objectstorage.port import check_portable

LOGS = "logs/"
ARCHIVES = "workspacearchives/"
CACHES = "caches/"
SECRETS = "secrets/"
STORE_HISTORY = "history/store.json"
"""Samples of the store over days."""
LAST_EXPORT = "history/export.json"
MAX_CACHE_KEY_BYTES = 200

_MAX_OWNER_BYTES = 100
_PLAIN = frozenset(string.ascii_letters + string.digits + "._@")
_PLAIN_NAME = re.compile(rf"[A-Za-z0-9._@]{{1,{_MAX_OWNER_BYTES}}}")
_UUID_BEGIN = re.compile(r"[0-9a-fA-F]{8}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def references(kind: str, task_id: str) -> str:
    """Return the prefix of the references to a task's logs (`LOGS`) or archives (`ARCHIVES`)."""
    return f"{kind}{task_id}/runs/"


def reference(kind: str, task_id: str, run_id: str) -> str:
    """Return the path of the object by which a run keeps a task's logs or archives."""
    return references(kind, task_id) + run_id


def data(kind: str, task_id: str) -> str:
    """Return the prefix of a task's logs or archives."""
    return f"{kind}{task_id}/data/"


def log(task_id: str, step: int | None) -> str:
    """Return the path of a step's log, or of the set-up's for None."""
    return data(LOGS, task_id) + ("setup.log" if step is None else f"steps/{step}.log")


def log_index(task_id: str, step: int | None) -> str:
    """Return the path of the index of a log's lines, which goes wherever the log goes."""
    return log(task_id, step) + ".lines"


def log_times(task_id: str, step: int | None) -> str:
    """Return the path of the times of a log's lines, which go wherever the log goes."""
    return log(task_id, step) + ".times"


def archive(task_id: str, step: int) -> str:
    """Return the path of an archive that a step saved to the workspace."""
    return f"{data(ARCHIVES, task_id)}{step}.tar"


def reports(task_id: str, step: int) -> str:
    """Return the path of the summary of an archive's reports, which goes wherever the archive goes."""
    return archive(task_id, step) + ".reports"


def cache_owner(group: str) -> str:
    """Return what the keys of a cache group begin with, before a "-": no two groups share a key.

    Executors join it and a task's own key with a "-", as Agola does. So no group's beginning may be that of another's:
    a UUID, which is what Agola's groups are, stays as it is, and so does a name without a "-" that cannot be the
    beginning of one; any other is escaped, behind a "=".

    Args:
        group: The group's name.

    Example:
        >>> cache_owner("acme"), cache_owner("acme-prod")
        ('acme', '=acme=2Dprod')
    """
    if _UUID.fullmatch(group) or (_PLAIN_NAME.fullmatch(group) and not _UUID_BEGIN.fullmatch(group)):
        return group
    escaped = "=" + "".join(chr(byte) if chr(byte) in _PLAIN else f"={byte:02X}" for byte in group.encode())
    if len(escaped) <= _MAX_OWNER_BYTES:
        return escaped
    return f"=h{hashlib.blake2b(group.encode(), digest_size=20).hexdigest()}"


def cache(key: str) -> str:
    """Return the path of a cache.

    Raises:
        BadRequestError: The key is empty, too long, or has characters that no path holds.
    """
    if not key or len(key.encode()) > MAX_CACHE_KEY_BYTES:
        raise BadRequestError("cache key too long" if key else "cache key is empty")
    if "/" in key:
        raise BadRequestError(f"cache key {key!r} has a '/'")
    return check_portable(f"{CACHES}{key}.tar")


def secrets(run_id: str) -> str:
    """Return the path of a run's secrets."""
    return check_portable(f"{SECRETS}{run_id}.json")


def run_of_secrets(path: str) -> str:
    """Return the run whose secrets are stored at a path."""
    return path.removeprefix(SECRETS).removesuffix(".json")


def source(source_id: str) -> str:
    """Return the path of a source archive."""
    return check_portable(f"sources/{source_id}.tar.zst")
