"""Secrets of runs in a service: stored apart, kept by restarts, gone with the run, in no export."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

import agola_core
from agola_core import ConflictError, CorruptionError, NotFoundError, Options, maintenance
from agola_core.runservice.archive import transfer
from agola_core.runservice.archive.projection import DATA_TYPES
from agola_core.runservice.inprocess import InProcessDirectory
from agola_core.runservice.model import object_paths
from agola_core.runservice.model.types import ExecutorPhase, RunPhase, RunResult
from agola_core.runservice.service import RunService
from agola_core.runservice.state.secrets import HIDDEN
from agola_core.runtime import faultpoints
from tests.support.runs import PlayedExecutor, archived, request, settled, task

SECRET = "correct horse"


@pytest.fixture
def executor(service, directory):
    return PlayedExecutor(service, directory)


@pytest.fixture
def make(service):
    """Make a run with a secret in its task's environment, and another one for the whole run."""

    def make(task_id="a", **fields):
        asked = request(
            task(task_id, environment={"PASS": SECRET}), environment={"TOKEN": "battery"}, secrets=[SECRET, "battery"]
        )
        return service.create_run(replace(asked, **fields)) if fields else service.create_run(asked)

    return make


def stored(dm):
    return [info.path for info in dm.storage.list(object_paths.SECRETS)]


def finish(service, executor, run, phase=ExecutorPhase.SUCCESS):
    (task_id,) = run.tasks
    executor.end(task_id, phase)
    return archived(service, run.id)


def test_executors_get_secrets_and_nobody_else(service, executor, make, dm):
    made = make()
    assert made.run_config.tasks["a"].environment == {"PASS": HIDDEN}
    assert made.run_config.environment == {"TOKEN": HIDDEN}
    given = executor.wait_task("a")
    assert (given.environment, given.secrets) == ({"PASS": SECRET, "TOKEN": "battery"}, [SECRET, "battery"])
    finish(service, executor, made.run)
    bundle = service.get_run(made.run.id)
    assert bundle.run_config == made.run_config
    exported = io.BytesIO()
    transfer.export(dm, exported, include=list(transfer.Include))
    assert b'"data_type":"runconfig"' in exported.getvalue()
    for secret in (SECRET, "battery"):
        assert secret not in repr(bundle)
        for data_type in DATA_TYPES:
            assert not any(secret.encode() in data for _, data in dm.list_objects(data_type))


def test_why_a_task_failed_shows_no_secret(service, executor, make):
    made = make()
    reason = f"step 0: the cache key {SECRET!r} has a character that keys cannot have"
    executor.end("a", ExecutorPhase.FAILED, fail_error=reason)
    done = archived(service, made.run.id)
    assert done.tasks["a"].reason == reason.replace(SECRET, HIDDEN)


def test_restarts_keep_secrets_and_deletions_take_them(service, executor, make, dm):
    first = make()
    finish(service, executor, first.run, ExecutorPhase.FAILED)
    again = service.create_run(replace(request(), run_config_tasks=None, run_id=first.run.id, secrets=["staple"]))
    (task_id,) = again.run.tasks
    given = executor.wait_task(task_id)
    assert given.environment["PASS"] == SECRET
    assert given.secrets == [SECRET, "battery", "staple"]
    finish(service, executor, again.run)
    assert stored(dm) == [object_paths.secrets(first.run.id), object_paths.secrets(again.run.id)]
    service.delete_run(first.run.id)
    assert stored(dm) == [object_paths.secrets(again.run.id)]


def test_a_run_that_was_imported_has_no_secrets_to_restart_with(service, executor, make, dm, tmp_path):
    made = make()
    finish(service, executor, made.run, ExecutorPhase.FAILED)
    exported = io.BytesIO()
    transfer.export(dm, exported)
    exported.seek(0)
    with agola_core.open(tmp_path / "other", data_types=DATA_TYPES, options=Options(background=False)) as other:
        maintenance.enable(other.coordinator)
        transfer.import_(other, exported)
        with RunService(other, tmp_path / "other.db", InProcessDirectory()) as restored:
            with pytest.raises(ConflictError, match="are not here, since exports do not hold them: make a new run"):
                restored.create_run(replace(request(), run_config_tasks=None, run_id=made.run.id))
            restored.delete_run(made.run.id)


def test_a_run_that_was_imported_over_another_does_not_take_its_secrets(service, executor, make, dm, tmp_path):
    made = make()
    finish(service, executor, made.run, ExecutorPhase.FAILED)
    exported = io.BytesIO()
    transfer.export(dm, exported)
    exported.seek(0)
    with agola_core.open(tmp_path / "other", data_types=DATA_TYPES, options=Options(background=False)) as other:
        with RunService(other, tmp_path / "before.db", InProcessDirectory()) as before:
            own = before.create_run(request(task("own"), environment={"TOKEN": "staple"}, secrets=["staple"]))
            assert own.run.id == made.run.id
        maintenance.enable(other.coordinator)
        transfer.import_(other, exported)
        assert stored(other) in ([], [object_paths.secrets(made.run.id)])
        with (
            RunService(other, tmp_path / "after.db", InProcessDirectory()) as restored,
            pytest.raises(ConflictError, match="are not here"),
        ):
            restored.create_run(replace(request(), run_config_tasks=None, run_id=made.run.id))


def test_what_belongs_to_no_run_is_swept(service, executor, make, dm):
    def crash(name):
        if name == "create.before-commit":
            raise RuntimeError

    with faultpoints.arm(crash), pytest.raises(RuntimeError):
        make()
    assert len(stored(dm)) == 1
    kept = make().run
    secrets, tomorrow = service._secrets, datetime.now(UTC) + timedelta(days=1)
    secrets.sweep(service._queries.exists, datetime.now(UTC) - timedelta(days=1))
    assert len(stored(dm)) == 2
    secrets.sweep(service._queries.exists, tomorrow)
    assert stored(dm) == [object_paths.secrets(kept.id)]
    finish(service, executor, kept)
    secrets.sweep(service._queries.exists, tomorrow)
    assert stored(dm) == [object_paths.secrets(kept.id)]


def test_damaged_secrets_are_told(service, executor, make, dm, open_service):
    made = make()
    finish(service, executor, made.run, ExecutorPhase.FAILED)
    other = make("b").run
    path = object_paths.secrets(made.run.id)
    dm.storage.write(path, dm.storage.read(object_paths.secrets(other.id)))
    fresh = open_service()
    with pytest.raises(CorruptionError, match="the secrets of run"):
        fresh.create_run(replace(request(), run_config_tasks=None, run_id=made.run.id))
    dm.storage.write(path, b"{}")
    with pytest.raises(CorruptionError, match="not the secrets of a run"):
        fresh.create_run(replace(request(), run_config_tasks=None, run_id=made.run.id))
    with pytest.raises(NotFoundError):
        service._secrets.find("none")


def test_a_run_without_secrets_stores_none(service, executor, dm):
    run = service.create_run(request(task("a"))).run
    done = finish(service, executor, run)
    assert (done.phase, done.result) == (RunPhase.FINISHED, RunResult.SUCCESS)
    assert stored(dm) == []
    assert "has_secrets" not in json.loads(dm.read_object("runconfig", run.id)[0])
    assert settled(service, run.id, lambda found: found.archived).archived
