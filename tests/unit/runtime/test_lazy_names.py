"""The packages whose names are imported when they are first used."""

import inspect
import subprocess
import sys
import types
import typing

import pytest

import agola_core
import agola_core.aio
import agola_core.coordinator
import agola_core.datamanager
import agola_core.db
import agola_core.events
import agola_core.executor.drivers.port
import agola_core.maintenance
import agola_core.objectstorage
import agola_core.readdb
import agola_core.runconfig
import agola_core.standalone
import agola_eventsourcing
import agola_http.client
import agola_pytest.servers.etcd
import agola_pytest.servers.runservice
import agola_pytest.servers.s3


@pytest.mark.parametrize("package", [agola_core, agola_core.datamanager])
def test_every_public_name_is_there(package):
    for name in package.__all__:
        assert getattr(package, name) is not None, name
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018


PUBLIC = [
    *(agola_core, agola_core.aio, agola_core.coordinator, agola_core.datamanager, agola_core.db, agola_core.events),
    *(agola_core.executor.drivers.port, agola_core.maintenance, agola_core.objectstorage, agola_core.readdb),
    *(agola_core.runconfig, agola_core.standalone, agola_eventsourcing, agola_http.client),
    *(agola_pytest.servers.etcd, agola_pytest.servers.runservice, agola_pytest.servers.s3),
]


def callables(package):
    """Yield the public classes, functions and methods of a package, with their names."""
    for name in getattr(package, "__all__", [name for name in vars(package) if not name.startswith("_")]):
        found = getattr(package, name)
        if inspect.isfunction(found) or inspect.isclass(found):
            yield name, found
        for method, part in inspect.getmembers_static(found) if inspect.isclass(found) else ():
            inner = part.fget if isinstance(part, property) else getattr(part, "__func__", part)
            if isinstance(inner, types.FunctionType) and (method == "__init__" or not method.startswith("_")):
                yield f"{name}.{method}", inner


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.__name__)
def test_annotations_of_public_names_can_be_resolved(package):
    unresolved = {}
    for name, found in callables(package):
        try:
            typing.get_type_hints(found)
        except (NameError, TypeError) as error:
            unresolved[name] = str(error)
    assert unresolved == {}
    assert dict(callables(package))


def test_annotations_load_nothing():
    code = """if True:
        import sys, typing, agola_core
        agola_core.open
        assert not {"fsspec", "agola_core.datamanager.check.data_files"} & {*sys.modules}
        assert typing.get_type_hints(agola_core.verify)["return"].__args__[0].__name__ == "Finding"
        assert "agola_core.datamanager.check.data_files" in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_run_loads_nothing_that_it_does_not_use(tmp_path):
    (tmp_path / "config.yml").write_text("runs: [{name: r, tasks: [{name: t, steps: [{run: 'true'}]}]}]")
    command = ["-X", "importtime", "-m", "agola_cli", "run", "config.yml", "--data-dir", "data"]
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "agola_core.standalone" in loaded
    unused = ("rich", "starlette", "uvicorn", "asyncio", "httpx2", "tarfile", "socket.ssl", "tomllib", "pyexpat")
    ours = ("events.store", "runconfig.jsonnet", "executor.tasks.steps", "tar_stream", "runservice.archive.transfer")
    assert loaded.isdisjoint({*unused, *(f"agola_core.{name}" for name in ours), "agola_cli.connect.target"})
