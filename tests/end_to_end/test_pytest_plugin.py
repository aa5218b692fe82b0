"""The pytest plugin, as a project that uses it meets it."""

import contextlib
import os
import subprocess
import sys

import pytest

import agola_core
from agola_core.coordinator import open_coordinator
from agola_core.objectstorage import open_storage
from tests.support.pages import NO_OTHERS

pytest_plugins = ["pytester"]

FIXTURES = ["failures", "require", "runservice", "servers", "store"]
MODULES = ["options", "plugin", "fixtures", *(f"fixtures.{name}" for name in FIXTURES)]

WRITER = """
import agola_core
from agola_core import Put

def write(directory):
    with agola_core.open(directory, data_types=["object"]) as store:
        store.write_wal([Put("object", "a", b"1")])
        print("written")

def fail(directory):
    raise RuntimeError("a bug")
"""


@pytest.fixture
def run(pytester):
    def run_tests(text, *arguments):
        pytester.makepyfile(text)
        return pytester.runpytest_subprocess("-q", *NO_OTHERS, *arguments)

    return run_tests


def test_stores_are_fresh_and_of_the_types_asked_for(run):
    run(
        """
        import pytest
        from agola_core import Put

        @pytest.fixture(scope="session")
        def agola_store_types():
            return ["note", "tag"]

        @pytest.mark.parametrize("attempt", [1, 2])
        def test_one(agola_store, attempt):
            assert list(agola_store.list_objects("note")) == []
            agola_store.write_wal([Put("note", "n", b""), Put("tag", "t", b"")])

        def test_many(agola_store_factory):
            first, second = agola_store_factory("a"), agola_store_factory("b", data_types=["x"])
            first.write_wal([Put("note", "n", b"1")])
            second.write_wal([Put("x", "n", b"2")])
            again = agola_store_factory("a")
            assert again.read_object("note", "n")[0] == b"1"

        @pytest.mark.parametrize("attempt", [0, 1])
        def test_session(agola_session_store, attempt):
            assert len(list(agola_session_store.list_objects("note"))) == attempt
            agola_session_store.write_wal([Put("note", "n", b"1")])
        """
    ).assert_outcomes(passed=5)


def test_an_override_of_the_types_lasts_as_long_as_the_stores_that_need_it(run):
    result = run(
        """
        import pytest

        @pytest.fixture
        def agola_store_types():
            return ["note"]

        def test_of_its_own(agola_store, agola_store_factory):
            assert list(agola_store.list_objects("note")) == []

        def test_of_the_session(agola_session_store):
            assert False
        """
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(['agola_store_types has a narrower scope than the session: *scope="session"*'])


def test_workers_do_not_meet(run):
    run(
        """
        import pytest
        from agola_core import Put

        @pytest.mark.parametrize("number", range(8))
        def test_one(agola_store, agola_session_store, number):
            agola_store.write_wal([Put("object", "n", b"")])
            agola_session_store.write_wal([Put("object", str(number), b"")])
        """,
        "-n",
        "2",
    ).assert_outcomes(passed=8)


def test_crashes_happen_where_they_are_asked_for(run):
    run(
        WRITER
        + """
def test_after(agola_crash, tmp_path):
    assert agola_crash("commit.after-txn", write, str(tmp_path)).crashed
    with agola_core.open(tmp_path, data_types=["object"]) as store:
        assert store.read_object("object", "a")[0] == b"1"

def test_never(agola_crash, tmp_path):
    outcome = agola_crash("commit.after-txn", write, str(tmp_path), hit=2)
    assert not outcome.crashed
    assert "written" in outcome.output
"""
    ).assert_outcomes(passed=2)


def test_a_crash_that_cannot_happen_is_told(run):
    result = run(
        WRITER
        + """
def test_unknown(agola_crash, tmp_path):
    agola_crash("commit.after-tx", write, str(tmp_path))

def test_bug(agola_crash, tmp_path):
    agola_crash("commit.after-txn", fail, str(tmp_path))

def test_inner(agola_crash, tmp_path):
    agola_crash("commit.after-txn", lambda: None)

def test_builtin(agola_crash, tmp_path):
    agola_crash("commit.after-txn", int, "5")
"""
    )
    result.assert_outcomes(failed=4)
    output = result.stdout.str()
    assert "<class 'int'> must be a function at the top level" in output
    assert "did you mean commit.after-txn" in output
    assert "RuntimeError: a bug" in output
    assert "must be a function at the top level" in output


def test_a_service_has_a_client_and_its_log_is_shown_on_failure(run):
    result = run(
        """
        from agola_core.runservice.model.requests import RunQuery

        def test_client(agola_runservice):
            assert agola_runservice.client().list_runs(RunQuery()) == []

        def test_restart(agola_runservice):
            agola_runservice.kill()
            agola_runservice.start()
            assert agola_runservice.client().list_runs(RunQuery()) == []
            assert agola_runservice.stop() == 0

        def test_several(agola_runservice_factory):
            first, second = agola_runservice_factory("a"), agola_runservice_factory("b")
            assert first.url != second.url

        def test_failing(agola_runservice):
            with agola_runservice.log.open("a") as log:
                log.write("what the service said")
            assert False
        """
    )
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*log service.log*", "what the service said"])


def test_each_test_has_a_place_of_its_own_in_the_sessions_servers(run):
    run(
        """
        import agola_core, pytest
        from agola_core import Put

        endpoints = set()

        @pytest.mark.parametrize("attempt", [1, 2])
        def test_places(agola_s3, agola_etcd, agola_session_s3, attempt):
            urls = {"storage": agola_s3.url("s"), "coordinator": agola_etcd.url("c")}
            with agola_core.open(**urls, data_types=["n"]) as store:
                assert list(store.list_objects("n")) == []
                store.write_wal([Put("n", "a", b"1")])
            assert agola_s3.url("s") == urls["storage"]
            assert agola_session_s3.endpoint == agola_s3.endpoint
            endpoints.add((agola_s3.endpoint, agola_etcd.endpoint))
            assert len(endpoints) == 1

        def test_servers_of_its_own(agola_etcd, agola_etcd_factory, agola_s3_factory, agola_s3):
            etcd = agola_etcd_factory()
            assert etcd.endpoint != agola_etcd.endpoint
            etcd.kill()
            etcd.start()
            assert agola_s3_factory().endpoint != agola_s3.endpoint

        def test_failing(agola_etcd):
            assert False
        """,
        "--agola-require=etcd,s3",
    ).assert_outcomes(passed=3, failed=1)


OUTSIDE = """
import agola_core, os, pytest

@pytest.mark.parametrize("attempt", [1, 2])
def test_outside(agola_etcd, agola_s3, attempt):
    assert agola_etcd.endpoint == os.environ["WANTED_ETCD"]
    assert agola_s3.endpoint == os.environ["WANTED_S3"]
    with agola_core.open(
        storage=agola_s3.url("s"), coordinator=agola_etcd.url("c"), data_types=["n"], durability="storage"
    ) as store:
        assert list(store.list_objects("n")) == []
        store.write_wal([agola_core.Put("n", "a", b"1")])
"""


def test_servers_that_run_already_are_used_and_left_clean(
    run, pytester, monkeypatch, agola_etcd_factory, agola_s3_factory
):
    etcd, s3 = agola_etcd_factory(), agola_s3_factory()
    monkeypatch.setenv("WANTED_ETCD", etcd.endpoint)
    monkeypatch.setenv("WANTED_S3", s3.endpoint)
    monkeypatch.setenv("AGOLA_ETCD", "nowhere:1")  # the command line comes first
    monkeypatch.delenv("AGOLA_S3", raising=False)
    for suffix in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):  # as a user gives those of a server that runs already
        monkeypatch.setenv(f"AGOLA_S3_{suffix}", os.environ[f"{s3.credentials}_{suffix}"])
    pytester.makeini(f"[pytest]\nagola_s3 = {s3.endpoint}/mine")
    run(OUTSIDE, f"--agola-etcd={etcd.endpoint}", "-n", "2").assert_outcomes(passed=2)
    with contextlib.closing(open_coordinator(etcd.url())) as coordinator:
        assert coordinator.list("").items == ()
    with contextlib.closing(open_storage(s3.url(bucket="mine", create_bucket="false"))) as storage:
        assert list(storage.list(recursive=True)) == []


@pytest.mark.parametrize(
    ("arguments", "environment", "ini", "message"),
    [
        (["--agola-s3=localhost:9000"], "", "", "--agola-s3: 'localhost:9000': expected http://HOST:PORT"),
        (["--agola-s3=http://h:9000/a/b"], "", "", "expected http://HOST:PORT or http://HOST:PORT/BUCKET"),
        (["--agola-s3=http://h:x"], "", "", "--agola-s3: 'http://h:x': Port could not be cast"),
        (["--agola-etcd=h1:2379,"], "", "", "--agola-etcd: 'h1:2379,': expected HOST:PORT,HOST:PORT"),
        (
            [],
            "AGOLA_ETCD=http://h:2379",
            "",
            "the environment variable AGOLA_ETCD: 'http://h:2379': expected HOST:PORT",
        ),
        ([], "", "agola_log_level = loud", "agola_log_level in the ini file: 'loud': expected error, info, debug"),
        (["--agola-log-lines=-1"], "", "", "--agola-log-lines: '-1': expected a number of lines"),
        (["--agola-require=etdc"], "", "", "no server 'etdc'; there are chromium, container, etcd, s3 and all"),
        (["--agola-container-engine=podman"], "", "", "--agola-container-engine: 'podman': expected unix:///PATH"),
    ],
)
def test_an_option_that_cannot_be_is_one_usage_error(pytester, monkeypatch, arguments, environment, ini, message):
    name, _, text = environment.partition("=")
    if name:
        monkeypatch.setenv(name, text)
    pytester.makeini(f"[pytest]\n{ini}")
    result = pytester.runpytest_inprocess("--collect-only", "-p", "no:xdist", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert [line for line in result.stderr.lines if line] == [f"ERROR: {line}" for line in [result.errlines[0][7:]]]
    assert message in result.stderr.str()


def test_what_failed_tests_leave_can_be_kept(run, pytester):
    result = run(
        """
        import agola_core, pytest
        from agola_core import Put

        @pytest.mark.parametrize("works", [True, False])
        def test_it(agola_store, works):
            agola_store.write_wal([Put("object", "a", b"1")])
            assert works

        def test_service(agola_session_runservice):
            agola_session_runservice.stop()
            with agola_session_runservice.log.open("a") as log:
                log.write("one\\ntwo\\nthree\\n")
            assert False
        """,
        "--agola-keep=kept",
        "--agola-log-level=info",
        "--agola-log-lines=2",
        "-o",
        "tmp_path_retention_policy=none",
    )
    result.assert_outcomes(passed=1, failed=2)
    kept = pytester.path / "kept"
    assert sorted(path.name for path in kept.iterdir()) == [
        "session-main",
        "test_what_failed_tests_leave_can_be_kept.py-test_it-False",
    ]
    with agola_core.open(
        kept / "test_what_failed_tests_leave_can_be_kept.py-test_it-False/agola/store", data_types=["object"]
    ) as store:
        assert store.read_object("object", "a")[0] == b"1"
    result.stdout.fnmatch_lines(["*kept in */kept/*False"])
    result.stdout.fnmatch_lines(["*log session-runservice.log*", "two", "three"])
    result.stdout.no_fnmatch_line("one")
    assert " INFO " in (kept / "session-main/session-runservice.log").read_text()


def test_unused_it_imports_nothing_of_the_library(pytester):
    """Nor of what only its servers need: the modules of a session with it and of one without it, compared."""
    script = "import pytest, sys; pytest.main(sys.argv[1:]); print('modules', *sorted(sys.modules))"
    command = [sys.executable, "-c", script, "--collect-only", "-q", *NO_OTHERS]

    def modules(*arguments):
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": ""}
        )
        (line,) = (line for line in done.stdout.splitlines() if line.startswith("modules"))
        return set(line.split()[1:])

    ours = {"agola_pytest", *(f"agola_pytest.{name}" for name in MODULES)}
    assert modules() - modules("-p", "no:agola") <= ours
