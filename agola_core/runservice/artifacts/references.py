"""References of runs to a task's logs and archives: one object per run, stored beside them, as in Agola.

Restarts share tasks, so the data of a task does not belong to one run. A reference is written before the data, or
before the run that shares it. Data is deleted only by a process that has removed a reference and then found no other.
Two that remove theirs at the same time both look after removing, so at least one of them finds none.
"""

from __future__ import annotations

from agola_core.errors import NotFoundError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.model import object_paths
from agola_core.runservice.model.types import RunTask
from agola_core.runtime import faultpoints

faultpoints.declare("references.before-write", "references.before-release", "references.before-delete")

KINDS = (object_paths.LOGS, object_paths.ARCHIVES)


def refer(storage: ObjectStorage, task: RunTask, run_id: str) -> None:
    """Write a run's references to a task's logs and, if the task has steps that save any, archives."""
    for kind in KINDS if task.workspace_archives else (object_paths.LOGS,):
        faultpoints.reach("references.before-write")
        storage.write(object_paths.reference(kind, task.id, run_id), b"")


def release(storage: ObjectStorage, task_id: str, run_id: str) -> bool:
    """Remove a run's references to a task's logs and archives; data without references is deleted.

    Returns:
        Whether any data was deleted.
    """
    deleted = False
    for kind in KINDS:
        faultpoints.reach("references.before-release")
        _delete(storage, object_paths.reference(kind, task_id, run_id))
        if next(iter(storage.list(object_paths.references(kind, task_id))), None) is not None:
            continue
        for info in list(storage.list(object_paths.data(kind, task_id))):
            faultpoints.reach("references.before-delete")
            _delete(storage, info.path)
            deleted = True
    return deleted


def _delete(storage: ObjectStorage, path: str) -> None:
    try:
        storage.delete(path)
    except NotFoundError:
        return  # another process did
