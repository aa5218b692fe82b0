"""The pytest plugin, as a project that uses it meets it."""

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

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
        return pytester.runpytest_subprocess("-q", *arguments)

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
"""
    )
    result.assert_outcomes(failed=3)
    output = result.stdout.str()
    assert "did you mean commit.after-txn" in output
    assert "RuntimeError: a bug" in output
    assert "must be a function at the top level" in output


def test_a_service_has_a_client_and_its_log_is_shown_on_failure(run):
    result = run(
        """
        from agola_core.runservice.requests import RunQuery

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


def test_unused_it_imports_nothing_of_the_library():
    script = "import sys, agola_pytest.plugin; assert not any(name.startswith('agola_core') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
