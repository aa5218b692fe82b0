"""What a service does with runs that a recovery of its store has left without their configurations."""

import agola_core
from agola_core import Options
from agola_core.runservice.archive.projection import DATA_TYPES
from agola_core.runservice.inprocess import InProcessDirectory
from agola_core.runservice.model.requests import RunQuery
from agola_core.runservice.service import RunService
from tests.support.runs import PlayedExecutor, archived, request, task

QUIET = Options(background=False)


def opened(path, **options):
    return agola_core.open(path / "store", data_types=DATA_TYPES, options=QUIET, **options)


def test_runs_from_after_the_recovered_state_are_removed(tmp_path):
    with opened(tmp_path) as dm, RunService(dm, tmp_path / "a.db", InProcessDirectory()) as service:
        kept = service.create_run(request(task("kept"))).run.id
        dm.sync()
        lost = service.create_run(request(task("lost"))).run.id
    with opened(tmp_path, recover=True) as dm:
        directory = InProcessDirectory()
        service = RunService(dm, tmp_path / "b.db", directory)
        assert {run.id for run in service.active_runs()} == {kept, lost}
        service.start()
        executor = PlayedExecutor(service, directory)
        executor.end("kept")
        assert archived(service, kept).archived
        assert service.wait_archived([lost], 20)
        assert [run.id for run in service.list_runs(RunQuery())] == [kept]
        again = service.create_run(request(task("again"))).run.id
        executor.end("again")
        assert archived(service, again).archived
        service.close()
