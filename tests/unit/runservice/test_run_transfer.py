"""Moving a whole run service: active runs, logs and archives, and the way from and to Agola 0.2."""

import base64
import io
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from agola_core import AgolaError, BadRequestError, Put, maintenance
from agola_core.coordinator.port import PutOp
from agola_core.datamanager import ExportFormat
from agola_core.runservice.archive import transfer
from agola_core.runservice.archive.agola_form import agola_data
from agola_core.runservice.archive.transfer import Include
from agola_core.runservice.inprocess import InProcessDirectory
from agola_core.runservice.logs.log_times import read_times
from agola_core.runservice.model.line_times import LineClock, encode, parse
from agola_core.runservice.model.requests import RunQuery
from agola_core.runservice.model.types import (
    ExecutorPhase,
    FetchPhase,
    Run,
    RunConfig,
    RunPhase,
    RunResult,
    RunTask,
    RunTaskStep,
    TaskStatus,
)
from agola_core.runservice.service import RunService
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.store import RunStore
from agola_core.runtime.faultpoints import InjectedFaultError, arm, trigger
from agola_core.standalone import open_reader, open_store

RUN_ID = "0000001ekg0a0-0000000000001"

# As Agola 0.2 stores them: Go's field order, its escapes, its times with their zone, null maps.
AGOLA_RUN = (
    '{"id":"0000001ekg0a0-0000000000001","name":"build \\u003cmain\\u003e \\u0026 test","counter":7,'
    '"group":"/project/p1/branch/feature%2Fx","annotations":{"a":"1","commit_sha":"abc","message":"é\\u2028"},'
    '"phase":"finished","result":"success","tasks":{"t1":{"id":"t1","status":"success",'
    '"setup_step":{"phase":"success","log_phase":"finished","start_time":"2019-07-02T10:00:00.12Z",'
    '"end_time":"2019-07-02T10:00:01Z"},"steps":[{"phase":"success","log_phase":"finished",'
    '"start_time":"2019-07-02T12:00:01.000001+02:00","end_time":"2019-07-02T12:00:02+02:00"}],'
    '"workspace_archives":[0],"workspace_archives_phase":["finished"],"start_time":"2019-07-02T10:00:00Z",'
    '"end_time":"2019-07-02T10:00:02Z"}},"enqueue_time":"2019-07-02T09:59:59.5Z",'
    '"start_time":"2019-07-02T10:00:00Z","end_time":"2019-07-02T10:00:02Z","archived":true}'
)
AGOLA_CONFIG = (
    '{"id":"0000001ekg0a0-0000000000001","name":"build","group":"/project/p1/branch/feature%2Fx",'
    '"static_environment":{"A":"1","B":"\\u003c"},"tasks":{"t1":{"id":"t1","name":"build","depends":null,'
    '"runtime":{"type":"pod","arch":"amd64","containers":[{"image":"busybox","privileged":false,"entrypoint":""}]},'
    '"steps":[{"type":"run","name":"make","command":"make \\u0026\\u0026 make test"},'
    '{"type":"save_to_workspace","contents":[{"source_dir":".","dest_dir":".","paths":["**"]}]},null],'
    '"docker_registries_auth":{"index.docker.io":{"type":"basic","username":"u","password":"p","auth":""}}},'
    '"t2":{"level":1,"id":"t2","name":"deploy","depends":{"t1":{"task_id":"t1","conditions":["on_success"]}},'
    '"runtime":{"type":"pod"},"needs_approval":true,"docker_registries_auth":null}},"cache_group":"p1"}'
)


def go_entry(data_type, object_id, data):
    encoded = base64.b64encode(data.encode()).decode()
    return f'{{"id":"{object_id}","data_type":"{data_type}","data":"{encoded}"}}'.encode()


AGOLA_EXPORT = (
    go_entry("run", RUN_ID, AGOLA_RUN) + go_entry("runconfig", RUN_ID, AGOLA_CONFIG) + go_entry("runcounter", "p1", "7")
)


@pytest.fixture
def open_runs(tmp_path):
    opened = []

    def open_one(name="store"):
        dm = open_store(tmp_path / name, background=False)
        opened.append(dm)
        return dm

    yield open_one
    for dm in opened:
        dm.close()


def exported(dm, form=ExportFormat.NATIVE, include=()):
    file = io.BytesIO()
    transfer.export(dm, file, form, include=include)
    return file.getvalue()


def imported(dm, stream, **options):
    if not maintenance.status(dm.coordinator).enabled:
        maintenance.enable(dm.coordinator)
    return transfer.import_(dm, io.BytesIO(stream), **options)


def service_of(dm, tmp_path):
    return RunService(dm, tmp_path / "read.db", InProcessDirectory())


def active(run_id, phase=RunPhase.RUNNING, **tasks):
    return Run(id=run_id, name="r", group="/project/p1", phase=phase, tasks=tasks)


def add_active(dm, run):
    dm.write_wal([Put("runconfig", run.id, msgspec.json.encode(RunConfig(id=run.id, name="r")))])
    dm.coordinator.txn([], [PutOp(run_keys.RUNS.key(run.id), msgspec.json.encode(run))])


def test_an_export_of_agola_imports_and_goes_back_byte_for_byte(open_runs, tmp_path):
    dm = open_runs()
    assert imported(dm, AGOLA_EXPORT).entries == {"run": 1, "runconfig": 1, "runcounter": 1}
    service = service_of(dm, tmp_path)
    (run,) = service.list_runs(RunQuery(groups=("/project/p1",)))
    assert (run.name, run.counter, run.result) == ("build <main> & test", 7, RunResult.SUCCESS)
    config = service.get_run(RUN_ID).run_config
    assert [task.name for task in config.tasks.values()] == ["build", "deploy"]
    assert exported(dm, ExportFormat.AGOLA) == AGOLA_EXPORT
    service.close()


def test_what_agola_does_not_know_stays_out_of_its_format():
    task = RunTask(
        id="t1",
        status=TaskStatus.FAILED,
        reason="the executor was lost",
        attempt=2,
        steps=[RunTaskStep(phase=ExecutorPhase.FAILED, exit_code=3)],
        start_time=datetime(2019, 7, 2, 10, 0, 0, 120_000, tzinfo=UTC),
    )
    run = Run(id="r1", name="a\b<", phase=RunPhase.FINISHED, tasks={"z": task, "b": RunTask(id="b")}, archived=True)
    assert agola_data("run", msgspec.json.encode(run)).decode() == (
        '{"id":"r1","name":"a\\u0008\\u003c","phase":"finished","result":"unknown","tasks":{'
        '"b":{"id":"b","status":"notstarted","setup_step":{}},'
        '"z":{"id":"t1","status":"failed","setup_step":{},"steps":[{"phase":"failed"}],'
        '"start_time":"2019-07-02T10:00:00.12Z"}},"archived":true}'
    )


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (go_entry("run", RUN_ID, "{"), "entry 1: run '0000001ekg0a0-0000000000001': not a run: "),
        (go_entry("run", RUN_ID, '{"id":"other"}'), "the record is of 'other'"),
        (go_entry("run", "x", '{"id":"x"}'), "a run's id is a sequence"),
        (go_entry("runcounter", "p1", '"7"'), "entry 1: runcounter 'p1': not a runcounter: "),
        (go_entry("runconfig", RUN_ID, "[" * 100_000), "entry 1: runconfig .* not a runconfig"),
    ],
)
def test_records_that_are_none_are_refused_before_the_switch(open_runs, stream, reason):
    dm = open_runs()
    dm.write_wal([Put("runcounter", "p1", b"3")])
    with pytest.raises(BadRequestError, match=rf"^import: .*{reason}.*; nothing was imported$"):
        imported(dm, stream)
    assert dm.read_object("runcounter", "p1")[0] == b"3"


def test_active_runs_come_back_finished_as_stopped_and_the_old_ones_are_gone(open_runs, tmp_path):
    one, two = open_runs("one"), open_runs("two")
    tasks = {
        "done": RunTask(id="done", status=TaskStatus.SUCCESS),
        "on": RunTask(id="on", status=TaskStatus.RUNNING, steps=[RunTaskStep(phase=ExecutorPhase.RUNNING)]),
        "next": RunTask(id="next", waiting_approval=True, workspace_archives=[1]),
    }
    store = RunStore(one.coordinator, one.sequence.epoch)
    first, second = store.next_id(), store.next_id()
    add_active(one, active(first, **tasks))
    add_active(one, active(second, RunPhase.QUEUED))
    archived = active(store.next_id(), RunPhase.FINISHED)
    one.write_wal([Put("run", archived.id, msgspec.json.encode(archived))])
    add_active(two, active(first, old=RunTask(id="old")))
    two.coordinator.txn([], [PutOp(run_keys.TASKS.key("old"), b"{}"), PutOp(run_keys.event(first, "e"), b"{}")])
    stream = exported(one)
    sections = [json.loads(line) for line in stream.splitlines() if line.startswith(b'{"section"')]
    assert [(line["section"], line["id"]) for line in sections] == [("activeruns", first), ("activeruns", second)]
    result = imported(two, stream)
    assert result.sections == {"activeruns": 2}
    assert [item.key for item in two.coordinator.list("rs/").items] == [
        run_keys.COUNTER,
        run_keys.GROUPS_FLOOR,
        maintenance.KEY,
    ]
    service = service_of(two, tmp_path)
    runs = {run.id: run for run in service.list_runs(RunQuery(ascending=True))}
    assert list(runs) == [first, second, archived.id]
    back = runs[first]
    assert (back.phase, back.result, back.archived) == (RunPhase.FINISHED, RunResult.STOPPED, True)
    assert {name: task.status for name, task in back.tasks.items()} == {
        "done": TaskStatus.SUCCESS,
        "on": TaskStatus.STOPPED,
        "next": TaskStatus.CANCELLED,
    }
    assert "active when the store was exported" in back.tasks["on"].reason
    assert back.tasks["on"].steps[0].phase is ExecutorPhase.STOPPED
    assert back.tasks["on"].steps[0].log_lost
    assert back.tasks["next"].workspace_archives_phase == [FetchPhase.FINISHED]
    assert back.tasks["next"].archives_lost == [1]
    assert not back.tasks["next"].waiting_approval
    service.close()


def test_runs_after_an_import_sort_behind_the_imported_ones(open_runs):
    dm = open_runs()
    imported(dm, AGOLA_EXPORT)
    assert RunStore(dm.coordinator, dm.sequence.epoch).next_id() > RUN_ID


def test_logs_and_archives_come_along_when_asked_for(open_runs):
    one, two = open_runs("one"), open_runs("two")
    log, archive = b"line\n" * 100_000, bytes(range(256)) * 3000
    objects = {
        "logs/t1/data/setup.log": b"",
        "logs/t1/data/steps/0.log": log,
        "logs/t1/data/steps/0.log.times": encode(parse(LineClock().take(len(log), 1000)), len(log)),
        "logs/t1/runs/r1": b"",
        "workspacearchives/t1/data/0.tar": archive,
        "caches/k.tar": b"never",
    }
    for path, data in objects.items():
        one.storage.write(path, data)
    assert b"logs/t1" not in exported(one)
    stream = exported(one, include=list(Include))
    assert imported(two, stream, dry_run=True).sections == {"logs": 4, "archives": 1}
    assert list(two.storage.list("logs/")) == []
    result = imported(two, stream)
    assert (result.sections["logs"], result.sections["archives"]) == (4, 1)
    for path, data in objects.items():
        if not path.startswith("caches"):
            assert two.storage.read(path) == data
    assert parse(read_times(two.storage, "t1", 0, len(log))).at(1) == 1000
    assert imported(two, stream).sections["logs"] == 4  # what stands there already is the same
    two.storage.write("logs/t1/data/setup.log", b"other")
    with pytest.raises(BadRequestError, match="another object under this path"):
        imported(two, stream)
    with pytest.raises(BadRequestError, match="no place for"):
        exported(one, ExportFormat.AGOLA, include=[Include.LOGS])
    with pytest.raises(BadRequestError, match="include takes any of logs, archives"):
        transfer.parse_include("logs,cache")
    assert transfer.parse_include(" logs, archives,") == frozenset(Include)


def test_a_refused_import_takes_its_objects_back(open_runs):
    one, two = open_runs("one"), open_runs("two")
    for number in range(3):
        one.storage.write(f"logs/t{number}/data/setup.log", b"x")
    stream = exported(one, include=[Include.LOGS])
    broken = stream.replace(b"logs/t2/", b"logs/../")
    for wrong, reason in ((broken, "does not sort"), (stream[:-2], "cut short"), (stream[:-300], "cut short|missing")):
        with pytest.raises(BadRequestError, match=reason):
            imported(two, wrong)
        assert list(two.storage.list("logs/")) == []
    outside = stream.replace(b"logs/t0/data", b"data/t0/data")
    with pytest.raises(BadRequestError, match="does not begin with 'logs/'"):
        imported(two, outside)


def test_an_import_that_dies_before_its_last_step_is_finished_by_whoever_comes_next(open_runs, tmp_path):
    one, two = open_runs("one"), open_runs("two")
    one.write_wal([Put("runcounter", "p1", b"1")])
    stream = exported(one)
    add_active(two, active(RUN_ID))
    with arm(trigger("import.before-reset:1:raise")), pytest.raises(InjectedFaultError):
        imported(two, stream)
    assert dict(two.list_objects("runcounter")) == {"p1": b"1"}
    assert two.coordinator.get(run_keys.RUNS.key(RUN_ID)) is not None
    assert b'activeruns",' not in exported(two)  # an export, too, sees the new state alone
    service = service_of(two, tmp_path)
    assert service.active_runs() == []
    assert two.coordinator.get(run_keys.RESET) is None
    service.close()


def test_times_of_agola_keep_their_nanoseconds_as_long_as_nobody_changes_the_record():
    times = '"enqueue_time":"2026-11-28T07:36:31.622624825Z","start_time":"2026-11-28T07:36:31.65Z","archived":true}'
    written = (
        f'{{"id":"r1","name":"r","counter":1,"group":"/project/p","phase":"queued","result":"unknown",{times}'.encode()
    )
    assert agola_data("run", written) == written
    changed = written.replace(b'"archived":true', b'"archived":true,"reason":"x"')  # not Agola's form
    assert agola_data("run", changed) == written.replace(b".622624825Z", b".622625Z")


def test_a_reader_that_cannot_be_made_holds_nothing(tmp_path):
    with open_store(tmp_path, background=False) as dm:
        dm.coordinator.txn([], [PutOp(run_keys.RESET, b"no sequence")])
    with pytest.raises(AgolaError, match="no sequence") as found:
        open_reader(tmp_path)
    held = [os.path.realpath(descriptor) for descriptor in Path("/proc/self/fd").iterdir()]
    assert [path for path in held if path.startswith(str(tmp_path.resolve()))] == []
    assert found.tb is not None  # the error is still known, and what it refers to
