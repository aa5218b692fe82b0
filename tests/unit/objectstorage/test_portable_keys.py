"""The datamanager and the run service use only keys that every storage holds as it is."""

import io
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agola_core
from agola_core import BadRequestError, Options, Put
from agola_core.coordinator import open_coordinator
from agola_core.datamanager import DataManager
from agola_core.objectstorage import is_portable
from agola_core.runservice.model import object_paths
from agola_pytest.faults.faulty_storage import FaultyStorage


def test_the_datamanagers_keys(tmp_path):
    storage = FaultyStorage(agola_core.open_storage(tmp_path / "storage"))
    coordinator = open_coordinator(str(tmp_path / "coordinator.db"))
    options = Options(background=False, inline_limit=10, grace_period=0, retain_manifests=1)
    with DataManager(coordinator, storage, ["n"], options) as dm:
        for number in range(4):
            dm.write_wal([Put("n", "../" * number + "ü//%", b"x" * 10 * number)])
            dm.checkpoint(force=True)
        dm.collect_garbage()
        exported = io.BytesIO()
        dm.export(exported)
        exported.seek(0)
        dm.import_(exported)
        dm.write_wal([Put("n", "a", b"")])
        dm.sync()
        written = [key for name, key in storage.calls if name == "write"]
    coordinator.close()
    assert {key.rpartition(".")[2] for key in written} == {"json", "data", "wals", "payload"}
    assert all(map(is_portable, written))


def test_the_run_services_keys():
    task, run = str(uuid.uuid4()), str(uuid.uuid4())
    keys = [
        object_paths.log(task, None),
        object_paths.log(task, 12),
        object_paths.reference(object_paths.LOGS, task, run),
        object_paths.archive(task, 3),
        object_paths.reference(object_paths.ARCHIVES, task, run),
        object_paths.source("0" * 64),
    ]
    assert all(map(is_portable, keys))


@given(st.text(max_size=250))
def test_a_cache_has_a_portable_key_or_none(key):
    try:
        path = object_paths.cache(key)
    except BadRequestError:
        return
    assert is_portable(path)


@pytest.mark.parametrize("key", ["", "a/b", "a\0", "x" * 201])
def test_a_cache_key_that_no_path_holds_is_refused(key):
    with pytest.raises(BadRequestError):
        object_paths.cache(key)
