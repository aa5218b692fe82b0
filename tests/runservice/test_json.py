"""The records' JSON, against documents as Agola 0.2 writes them."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from agola_core.runservice.model.gojson import encode
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import (
    Depend,
    DependCondition,
    Executor,
    ExecutorTask,
    ExecutorTaskStatus,
    ExecutorTaskStepStatus,
    Run,
    RunConfig,
    RunConfigTask,
    RunEvent,
    RunPhase,
    RunStep,
    RunTask,
    SaveToWorkspaceStep,
    WorkspaceOperation,
)
from agola_http.server.request_json import decode

NOW = datetime(2019, 7, 1, 10, 0, 0, 120000, tzinfo=UTC)
ID = "0000001ekg0a0-0000000000001"

DOCUMENTS = [
    (Run(), '{"phase":"queued","result":"unknown"}'),
    (
        Run(
            id=ID,
            name="tests",
            counter=3,
            group="/project/p/branch/master",
            annotations={"b": "2", "a": "<&>"},
            tasks={"t": RunTask(id="t")},
            enqueue_time=NOW,
            archived=True,
        ),
        '{"id":"' + ID + '","name":"tests","counter":3,"group":"/project/p/branch/master",'
        '"annotations":{"a":"\\u003c\\u0026\\u003e","b":"2"},"phase":"queued","result":"unknown",'
        '"tasks":{"t":{"id":"t","status":"notstarted","setup_step":{}}},'
        '"enqueue_time":"2019-07-01T10:00:00.12Z","archived":true}',
    ),
    (
        RunConfigTask(id="t", name="build"),
        '{"id":"t","name":"build","depends":null,"docker_registries_auth":null}',
    ),
    (
        RunConfigTask(
            level=1,
            id="t",
            depends={"s": Depend(task_id="s", conditions=[DependCondition.ON_SUCCESS])},
            steps=[RunStep(name="make", command="make"), None, SaveToWorkspaceStep()],
            docker_registries_auth={},
        ),
        (
            '{"level":1,"id":"t","depends":{"s":{"task_id":"s","conditions":["on_success"]}},'
            '"steps":[{"type":"run","name":"make","command":"make"},null,{"type":"save_to_workspace"}],'
            '"docker_registries_auth":{}}'
        ),
    ),
    (RunConfig(), "{}"),
    (
        ExecutorTask(
            revision=7,
            id="t",
            status=ExecutorTaskStatus(executor_id="e", steps=[ExecutorTaskStepStatus()]),
            workspace_operations=[WorkspaceOperation(task_id="s")],
        ),
        (
            '{"revision":7,"id":"t","privileged":false,"docker_registries_auth":null,'
            '"status":{"executor_id":"e","phase":"notstarted","setup_step":{"phase":"notstarted"},'
            '"steps":[{"phase":"notstarted"}]},"SetupError":"","FailError":"",'
            '"workspace_operations":[{"task_id":"s"}]}'
        ),
    ),
    (
        Executor(id="e", listen_url="http://h:4001", archs=["amd64"], active_tasks_limit=2),
        (
            '{"id":"e","listenURL":"http://h:4001","archs":["amd64"],"active_tasks_limit":2,'
            '"last_status_update_time":"0001-01-01T00:00:00Z"}'
        ),
    ),
    (
        RunEvent(sequence=ID, run_id=ID, phase=RunPhase.RUNNING),
        f'{{"Sequence":"{ID}","RunID":"{ID}","Phase":"running","Result":"unknown"}}',
    ),
    (
        RunCreateRequest(group="/user/u"),
        (
            '{"run_config_tasks":null,"name":"","group":"/user/u","setup_errors":null,"static_environment":null,'
            '"cache_group":"","run_id":"","from_start":false,"reset_tasks":null,"environment":null,"annotations":null,'
            '"changeup_update_tokens":""}'
        ),
    ),
]


@pytest.mark.parametrize(("record", "document"), DOCUMENTS, ids=lambda item: type(item).__name__)
def test_records_are_written_as_go_writes_them_and_read_back(record, document):
    assert encode(record).decode() == document
    assert decode(document.encode(), type(record)) == record


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (NOW, "2019-07-01T10:00:00.12Z"),
        (NOW.replace(microsecond=0), "2019-07-01T10:00:00Z"),
        (NOW.replace(microsecond=123456), "2019-07-01T10:00:00.123456Z"),
        (NOW.replace(microsecond=100, tzinfo=timezone(timedelta(hours=2))), "2019-07-01T10:00:00.0001+02:00"),
    ],
)
def test_times_have_no_trailing_zeros(time, text):
    written = encode([Run(start_time=time, name="at 10:00:00.120000Z")])
    assert json.loads(written)[0]["start_time"] == text
    assert json.loads(written)[0]["name"] == "at 10:00:00.120000Z"
    assert decode(written, list[Run])[0].start_time == time
