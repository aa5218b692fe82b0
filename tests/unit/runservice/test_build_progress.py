"""The build of a readdb, which takes long with very many runs, is told of: by lines where there is no terminal."""

from __future__ import annotations

import msgspec

from agola_cli.output.progress_bar import Bar
from agola_core.datamanager import Put
from agola_core.runservice.archive.projection import RUN
from agola_core.runservice.model.requests import RunQuery
from agola_core.runservice.model.types import Run, RunPhase
from agola_core.runtime.progress import Report
from agola_core.standalone import Standalone, open_reader, open_store


def test_who_builds_a_readdb_is_told_of_its_rows(tmp_path):
    runs = [Run(id=f"run-{number}", group="/project/p", phase=RunPhase.FINISHED) for number in range(3)]
    with open_store(tmp_path, background=False) as dm:
        dm.write_wal([Put(RUN, run.id, msgspec.json.encode(run)) for run in runs])
    reports: list[Report] = []
    datamanager, service = open_reader(tmp_path, progress=reports.append)
    assert len(service.list_runs(RunQuery())) == 3
    service.close()
    datamanager.close()
    assert [(report.work, report.done, report.ended) for report in reports] == [("readdb", 3, True)]
    with Standalone(tmp_path, with_executor=False, progress=reports.append):
        assert len(reports) == 1  # it is there already
    for file in tmp_path.glob("readdb.db*"):
        file.unlink()
    with Standalone(tmp_path, with_executor=False, progress=reports.append):
        assert [(report.work, report.done, report.ended) for report in reports[1:]] == [("readdb", 3, True)]


def test_lines_tell_of_long_work_alone(capsys):
    def report(seconds: float, *, ended: bool = False) -> Report:
        return Report("readdb", round(1000 * seconds), 20_000, 0, seconds, ended)

    with Bar(lines=True) as bar:
        bar(report(0.2, ended=True))
        for seconds in (0.1, 4.9, 5.0, 5.1, 9.9, 10.1):
            bar(report(seconds))
        bar(report(11.0, ended=True))
        bar(report(0.2, ended=True))
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "readdb: 5,000 of about 20,000, 1,000/s",
        "readdb: 10,100 of about 20,000, 1,000/s",
        "readdb: 11,000, 1,000/s",
    ]
    with Bar() as bar:
        bar(report(20.0, ended=True))
    assert capsys.readouterr().err == ""
