"""Our client against our server: the methods of the run service, over a real connection."""

import io
import os
import uuid
from pathlib import Path

import pytest

from agola_cli.main import cli
from agola_core import Put, errors
from agola_core.datamanager import ExportFormat
from agola_core.runservice.model.requests import RunCreateRequest, RunQuery
from agola_core.runservice.model.types import RunConfigTask, RunPhase, RunStep
from agola_http.client import Client


@pytest.fixture
def client(server):
    with Client(server.url) as client:
        yield client


def request(group="/project/p1/branch/main", **fields):
    task = RunConfigTask(id=str(uuid.uuid4()), name="only", steps=[RunStep(name="one", command="true")])
    return RunCreateRequest(name="r", group=group, run_config_tasks={task.id: task}, **fields)


def test_a_run_is_created_read_and_changed(client):
    created = client.create_run(request(annotations={"a": "<&>"}))
    assert client.get_run(created.run.id).run_config == created.run_config
    assert client.find_run(created.run.id).annotations == {"a": "<&>"}
    assert client.find_run("none") is None
    queued = client.create_run(request()).run.id  # behind the one before it
    client.change_run_phase(queued, RunPhase.CANCELLED)
    assert client.get_run(queued).run.phase is RunPhase.CANCELLED
    (task_id,) = created.run.tasks
    client.set_annotations(created.run.id, task_id, {"note": "ü"})
    assert client.get_run(created.run.id).run.tasks[task_id].annotations == {"note": "ü"}
    with pytest.raises(errors.BadRequestError, match="not in waiting approval state"):
        client.approve_task(created.run.id, task_id)
    client.stop_run(created.run.id)
    for unknown in ("", ".", "..", "a/../b", "a b?c#d%2F", "a\nb", "ü"):
        with pytest.raises(errors.NotFoundError, match="doesn't exist"):
            client.get_run(unknown)


def test_lists_are_read_page_by_page(client):
    ids = [client.create_run(request("/project/pages/branch/x")).run.id for _ in range(95)]
    group = ("/project/pages",)
    assert [run.id for run in client.list_runs(RunQuery(groups=group, limit=93, ascending=True))] == ids[:93]
    assert [run.id for run in client.list_runs(RunQuery(groups=group, limit=3))] == ids[:-4:-1]
    assert client.list_runs(RunQuery(groups=group, limit=0)) == []
    assert [run.id for run in client.iterate_runs(RunQuery(groups=group))] == ids[::-1]
    after = RunQuery(groups=group, limit=1, start=ids[1], ascending=True, phases=(RunPhase.QUEUED,))
    assert [run.id for run in client.list_runs(after)] == [ids[2]]
    said = {"push": {"webhook_event": "push"}, "manual": {"run_creation_trigger": "manual"}}
    made = {event: client.create_run(request(annotations=said[event])).run.id for event in said}
    for events in (("push",), ("manual",), ("push", "manual")):
        found = client.list_runs(RunQuery(events=events, ascending=True))
        assert [run.id for run in found] == [made[event] for event in events]


def test_logs_sources_and_operations(client, server):
    with pytest.raises(errors.NotFoundError, match="no such run with id: none"):
        next(client.open_log("none", "t1", 0))
    assert len(client.put_source([b"a ", b"tree"])) > 8
    assert client.executors() == []
    assert client.status().store == server.datamanager.status().store
    assert client.version().name == "agola-core"
    assert client.change_groups_token(["g"])
    assert client.maintenance_status().enabled is False
    client.create_run(request())
    exported = b"".join(client.export_stream(ExportFormat.AGOLA))
    assert b'"data_type"' in exported
    with pytest.raises(errors.BadRequestError, match="not in maintenance mode"):
        client.import_(io.BytesIO(exported))
    client.import_(io.BytesIO(b"".join(client.export_stream())), dry_run=True)


def test_an_export_that_breaks_off_is_told_and_leaves_no_file(start_server, tmp_path):
    with start_server() as server, Client(server.url) as client:
        for number in range(40):
            server.datamanager.write_wal([Put("runconfig", f"c{number:02}", os.urandom(64 * 1024))])
        server.datamanager.checkpoint(force=True)
        storage = server.datamanager.storage
        largest = max(storage.list(), key=lambda info: info.size)
        file = Path(storage.root, "data", largest.path)
        data = bytearray(file.read_bytes())
        data[len(data) * 3 // 4] ^= 1
        file.write_bytes(data)
        pieces = client.export_stream()
        assert next(pieces)
        with pytest.raises(errors.UnavailableError, match="broke off"):
            list(pieces)
        with pytest.raises(errors.UnavailableError, match="broke off"):
            cli.main(["export", "--url", server.url, "-o", str(tmp_path / "backup")], standalone_mode=False)
        assert list(tmp_path.iterdir()) == []
