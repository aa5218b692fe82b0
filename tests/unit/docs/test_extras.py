"""Without an extra's packages, what needs them says which extra it is; everything else works."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
COMMAND = "import sys; sys.argv[0] = 'agola-core'; from agola_cli.__main__ import main; main()"


def without(packages, code, *arguments):
    """Run code in a Python that has not got some packages."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({packages!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", blocked + code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_base_install_is_five_packages():
    assert len(PROJECT["dependencies"]) <= 5


ALL = [
    "botocore", "click", "docker", "etcd3", "google", "grpc", "httpx2", "_jsonnet", "jinja2", "obstore",
    "prometheus_client", "pytest", "rich", "starlette", "uvicorn",
]  # fmt: skip


def test_the_core_works_with_the_base_packages_alone(tmp_path):
    code = """
import agola_core, agola_core.standalone
with agola_core.open(sys.argv[1], data_types=["note"]) as dm:
    dm.write_wal([agola_core.Put("note", "a", b"1")])
    print(dm.read_object("note", "a")[0])
"""
    done = without(ALL, code, str(tmp_path))
    assert (done.stdout, done.stderr, done.returncode) == ("b'1'\n", "", 0)


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("click", ["--help"], "cli"),
        ("uvicorn", ["serve", "--port", "0"], "http"),
        ("starlette", ["executor", "--url", "http://127.0.0.1:1"], "http"),
        ("httpx2", ["runs", "list", "--url", "http://127.0.0.1:1"], "http"),
        ("obstore", ["status", "--storage", "gs://bucket/p", "--data-dir", "."], "gcs"),
        ("obstore", ["status", "--storage", "az://bucket/p", "--data-dir", "."], "azure"),
        ("etcd3", ["status", "--storage", "posix://store", "--coordinator", "etcd://127.0.0.1:1"], "etcd"),
        ("google", ["status", "--storage", "posix://store", "--coordinator", "etcd://127.0.0.1:1"], "etcd"),
    ],
)
def test_a_command_without_its_extra_names_it_in_one_line(package, arguments, extra, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = without([package], COMMAND, *arguments)
    assert done.stdout == ""
    assert done.stderr.startswith("agola-core: ")
    assert f"pip install 'agola-core[{extra}]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("package", "fixture", "extra"),
    [
        ("click", "agola_runservice", "cli,http"),
        ("uvicorn", "agola_session_runservice", "cli,http"),
        ("etcd3", "agola_etcd", "etcd"),
        ("grpc", "agola_etcd_factory", "etcd"),
        ("docker", "agola_container_engine", "container"),
    ],
)
def test_a_fixture_without_its_extra_skips_and_names_it(package, fixture, extra, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGOLA_REQUIRE", raising=False)  # what is required is not skipped
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the imports of others would take most of the time
    monkeypatch.setenv("TMPDIR", "/tmp")  # podman takes no run root of more than 50 bytes, as a task's would be
    (tmp_path / "pytest.ini").touch()  # or this project's settings are taken, when it is run by itself
    (tmp_path / "test_it.py").write_text(f"def test_it({fixture}):\n    raise AssertionError\n")
    options = ["-q", "-rs", "-p", "no:cacheprovider", "-p", "agola_pytest.plugin"]
    run = f"import pytest; sys.exit(pytest.main([*{options}, *sys.argv[1:]]))"
    skipped = without([package], run)
    assert skipped.returncode == 0, skipped.stdout
    assert "1 skipped" in skipped.stdout
    assert extra in skipped.stdout
    failed = without([package], run, "--agola-require", "all")
    assert failed.returncode == 1, failed.stdout
    assert extra in failed.stdout
    assert "Traceback" not in failed.stdout


def test_the_extra_of_the_plugin_brings_what_its_service_needs():
    assert PROJECT["optional-dependencies"]["pytest"][0] == "agola-core[cli,http]"


def test_the_asynchronous_library_without_its_extra_names_it():
    code = """
import agola_core
try:
    import agola_core.aio
except agola_core.ConfigError as error:
    print(error)
"""
    done = without(["anyio"], code)
    assert (done.returncode, done.stderr) == (0, "")
    assert "agola-core[aio]" in done.stdout
