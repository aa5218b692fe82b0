"""The packages whose names are imported when they are first used."""

import subprocess
import sys

import pytest

import agola_core
import agola_core.datamanager


@pytest.mark.parametrize("package", [agola_core, agola_core.datamanager])
def test_every_public_name_is_there(package):
    for name in package.__all__:
        assert getattr(package, name) is not None, name
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_run_loads_nothing_that_it_does_not_use(tmp_path):
    (tmp_path / "config.yml").write_text("runs: [{name: r, tasks: [{name: t, steps: [{run: 'true'}]}]}]")
    command = ["-X", "importtime", "-m", "agola_cli", "run", "config.yml", "--data-dir", "data"]
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "agola_core.standalone" in loaded
    unused = ("rich", "starlette", "uvicorn", "asyncio", "httpx2", "tarfile", "socket.ssl", "tomllib", "pyexpat")
    ours = ("events.store", "runconfig.jsonnet", "executor.tasks.steps", "tar_stream", "runservice.archive.transfer")
    assert loaded.isdisjoint({*unused, *(f"agola_core.{name}" for name in ours), "agola_cli.connect.target"})
