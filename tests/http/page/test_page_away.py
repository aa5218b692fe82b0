"""The page while the store's parts are away: what is known is shown, what is not is said, and errors are pages."""

import contextlib
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

import agola_core
from agola_core import Put, RecoveryError
from agola_core.runservice.logs.log_lines import write_log
from agola_core.runservice.model import object_paths
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import (
    ExecutorPhase,
    FetchPhase,
    Run,
    RunConfigTask,
    RunPhase,
    RunResult,
    RunStep,
    RunTaskStep,
    SaveToWorkspaceStep,
    TaskStatus,
)
from agola_core.runservice.rules.new_run import new_run
from agola_core.sequence import Sequence

API = "/api/v1alpha"
LOG = "/page/runs/{run}/tasks/t/log?step=1"
RAW = f"{API}/logs?runid={{run}}&taskid=t&step=1"
PEOPLE = ("Accept: text/html,application/xhtml+xml,*/*;q=0.8",)


@pytest.fixture(scope="module")
def shown(start_server):
    """A server, and the id of a finished run whose log and archive are in storage."""
    with start_server() as server:
        steps = [SaveToWorkspaceStep(), RunStep(name="say", command="true")]
        request = RunCreateRequest(
            run_config_tasks={"t": RunConfigTask(id="t", name="t", depends={}, steps=steps)},
            name="r",
            group="/project/p",
        )
        now = datetime.now(UTC)
        bundle = new_run(request, str(Sequence(1, 1000)), 1, now)
        ended = RunTaskStep(ExecutorPhase.SUCCESS, FetchPhase.FINISHED, now, now, 0)
        task = replace(
            bundle.run.tasks["t"],
            status=TaskStatus.SUCCESS,
            setup_step=replace(ended, log_lost=True),
            steps=[ended, ended],
            workspace_archives=[0],
            reports=[0],
            workspace_archives_phase=[FetchPhase.FINISHED],
            start_time=now,
            end_time=now,
        )
        run = replace(
            bundle.run,
            phase=RunPhase.FINISHED,
            result=RunResult.SUCCESS,
            tasks={"t": task},
            start_time=now,
            end_time=now,
            archived=True,
        )
        server.datamanager.write_wal(
            [
                Put("runconfig", run.id, msgspec.json.encode(bundle.run_config)),
                Put("run", run.id, msgspec.json.encode(run)),
                Put("runcounter", "p", b"1"),
            ]
        )
        write_log(server.datamanager.storage, "t", 1, [b"said\n"])
        yield server, run.id


@contextlib.contextmanager
def away(server):
    """Take the directory of a store's storage away, as an unmount does."""
    root = Path(server.datamanager.storage.root)
    moved = root.rename(root.with_name("moved"))
    try:
        yield
    finally:
        moved.rename(root)


@contextlib.contextmanager
def coordinator_away(server):
    (file,) = Path(server.datamanager.storage.root).parent.glob("coordinator.db")
    moved = file.rename(file.with_name("moved.db"))
    with pytest.raises(RecoveryError):  # a write notices it at once, reads do within a second
        server.datamanager.write_wal([Put("runcounter", "other", b"1")])
    try:
        yield
    finally:
        moved.rename(file)


def ask(server, path, *headers):
    answer = server.request("GET", path, headers=headers)
    return answer.status, answer.headers["content-type"].partition(";")[0], answer.body.decode()


def test_a_run_is_shown_without_its_log_while_storage_is_away(shown):
    server, run = shown
    page = f"/page/runs/{run}"
    with away(server):
        assert "what the tasks reported is not known" in ask(server, f"{page}?view=results", *PEOPLE)[2]
        for path in (page, LOG.format(run=run)):
            status, kind, body = ask(server, path, *PEOPLE)
            assert (status, kind) == (200, "text/html")
            assert "Storage cannot be read now: this log is not shown" in body
            assert 'http-equiv="refresh"' in body  # it comes back by itself
        for path in ("/", "/page/groups", f"{page}?view=graph", f"{page}/restart", f"{page}/delete", "/badge.svg"):
            assert ask(server, path, *PEOPLE)[0] == 200
    status, _, body = ask(server, page, *PEOPLE)
    assert (status, "said" in body, "refresh" in body) == (200, True, False)


def test_what_is_known_of_a_run_is_shown_while_its_configuration_cannot_be_read(shown):
    server, known = shown
    run_id = str(Sequence(1, 2000))  # which nobody has asked for yet
    config = server.datamanager.read_object("runconfig", known)[0]
    run = msgspec.json.decode(server.datamanager.read_object("run", known)[0], type=Run)
    again = msgspec.json.encode(replace(run, id=run_id, restarted_from=known))
    server.datamanager.write_wal([Put("runconfig", run_id, config), Put("run", run_id, again)])
    server.datamanager.checkpoint(force=True)
    assert f"/page/runs/{run_id}" in ask(server, "/", *PEOPLE)[2]
    with away(server):
        for view in ("", "?part", "?view=graph", "?view=timeline", "?view=results", "/tasks/t/log?step=1"):
            status, kind, body = ask(server, f"/page/runs/{run_id}{view}", *PEOPLE)
            assert (status, kind) == (200, "text/html"), view
            assert "Storage cannot be read now, and with it the configuration" in body, view
            assert ("refresh" in body) is (view != "?part")
        assert "step 2" in body
        assert "restart of" in body
        check_error(server, f"{API}/runs/{run_id}", 503)
        check_error(server, "/page/runs/none", 503)
    body = ask(server, f"/page/runs/{run_id}", *PEOPLE)[2]
    assert "configuration" not in body
    assert "say" in body


def test_a_storage_that_hangs_holds_no_page_up(shown):
    server, run = shown
    index = Path(server.datamanager.storage.root, "data", object_paths.log_index("t", 1))
    os.mkfifo(index)  # opening it waits for a writer
    try:
        status, _, body = ask(server, f"/page/runs/{run}", *PEOPLE)
    finally:
        os.close(os.open(index, os.O_WRONLY | os.O_NONBLOCK))  # fails unless the read waits
        index.unlink()
    assert (status, "this log is not shown" in body) == (200, True)


def test_people_are_shown_errors_as_pages_and_programs_get_json(shown):
    server, run = shown
    cases = [
        ("/page/nothing", 404),
        ("/page/static/none.js", 404),
        ("/page/runs/none", 404),
        ("/page/runs/a%ff", 400),
        (f"/page/runs/{run}?view=none", 400),
        (f"{API}/runs/none", 404),
        (f"{API}/none", 400),
    ]
    gone = [(LOG.format(run=run).replace("log?", "log/find?") + "&text=a", 503), (RAW.format(run=run), 503)]
    for path, status in cases:
        check_error(server, path, status)
    with away(server):
        for path, status in gone:
            check_error(server, path, status)
            assert "retry-after" in server.request("GET", path).headers
            assert re.search('http-equiv="refresh" content="[0-9]+"', ask(server, path, *PEOPLE)[2])
    for path, _ in gone:
        assert ask(server, path, *PEOPLE)[0] == 200
    form = server.request("POST", "/page/runs/none/stop", b"", headers=PEOPLE)
    assert (form.status, b"refresh" in form.body, b"alert" in form.body) == (404, False, True)


def check_error(server, path, status):
    found, kind, body = ask(server, path, *PEOPLE)
    assert (found, kind) == (status, "text/html"), path
    assert 'role="alert"' in body
    assert "<h1>" in body
    for accepted in ((), ("Accept: */*",), ("Accept: application/json",)):
        found, kind, body = ask(server, path, *accepted)
        assert (found, kind) == (status, "application/json"), path
        assert json.loads(body)["message"]


def test_the_store_is_shown_while_one_of_its_parts_is_away(shown):
    server, _ = shown
    verified = agola_core.verify(Path(server.datamanager.storage.root).parent, noted_by="<ann>@here")
    exported = server.request("GET", f"{API}/export")
    assert (exported.status, verified) == (200, [])
    server.request("GET", f"{API}/export?at={server.datamanager.sequence}")  # of the past: no backup
    known = ask(server, "/page/store", *PEOPLE)[2]
    assert "&lt;ann&gt;@here" in known
    assert "no problems found" in known
    told = server.request("GET", f"{API}/status").json()
    assert (told["last_export"]["size"], told["last_verify"]["found"]) == (len(exported.body), 0)
    assert told["storage_answers"]
    with away(server):
        for path in ("/page/store", "/page/store?part"):
            status, _, body = ask(server, path, *PEOPLE)
            assert status == 200
            assert "Storage has not been read since" in body
            assert f"{len(exported.body):,} bytes" in body
            assert "no problems found" in body
        told = server.request("GET", f"{API}/status").json()
        assert (told["storage_answers"], told["last_export"]["size"]) == (False, len(exported.body))
    body = ask(server, "/page/store", *PEOPLE)[2]
    assert "has not been read" not in body
    with coordinator_away(server):
        for path in ("/page/store", "/page/store?part"):
            status, _, body = ask(server, path, *PEOPLE)
            assert status == 200
            assert "The coordinator does not answer" in body
            assert server.datamanager.lineage in body
        check_error(server, f"{API}/status", 503)
    assert "does not answer" not in ask(server, "/page/store", *PEOPLE)[2]
