"""Makes archived runs: an export of Agola's shape, and a store that has imported it.

`python -m bench.runservice.archivedruns DIRECTORY [COUNT]` makes a data directory of 1,000,000 runs to look at.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import msgspec
from msgspec.structs import replace

from agola_core.runservice.archive.agola_form import agola_data
from agola_core.runservice.archive.projection import RUN, RUN_CONFIG
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import RunConfigTask, RunPhase, RunResult, RunStep, TaskStatus
from agola_core.runservice.rules import new_run
from agola_core.sequence import Sequence

COUNT = 1_000_000
PROJECTS = 100
RUNS_OF_A_PULL_REQUEST = 5
_BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
_ENDS = (
    [(RunPhase.FINISHED, RunResult.SUCCESS)] * 85
    + [(RunPhase.FINISHED, RunResult.FAILED)] * 10
    + [(RunPhase.FINISHED, RunResult.STOPPED)] * 2
    + [(RunPhase.CANCELLED, RunResult.UNKNOWN)] * 2
    + [(RunPhase.SETUP_ERROR, RunResult.UNKNOWN)]
)


def run_id(number: int) -> str:
    return str(Sequence(1, 1 + number))


def group(number: int) -> str:
    """Return a run's group: half of the runs are of branches, half of pull requests of five runs each."""
    project, turn = number % PROJECTS, number // PROJECTS
    if turn % 2:
        return f"/project/{project}/branch/main"
    return f"/project/{project}/pr/{turn // (2 * RUNS_OF_A_PULL_REQUEST)}"


def import_runs(data_dir: Path, count: int) -> None:
    """Import so many runs into a new data directory."""
    command = [sys.executable, "-m", "agola_cli.main", "import", "-", "--yes", "--data-dir", str(data_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sys.stderr) as process:
        assert process.stdin is not None
        write_export(process.stdin, count)
        process.stdin.close()
        if process.wait() != 0:
            raise RuntimeError("the import failed")


def write_export(file: IO[bytes], count: int) -> None:
    """Write an export of runs and their configurations."""
    request = RunCreateRequest(
        name="build",
        group="/project/0/branch/main",
        run_config_tasks={"task": RunConfigTask(id="task", name="build", steps=[RunStep(command="make")])},
        annotations={"branch": "main", "commit_sha": "0123456789abcdef0123456789abcdef01234567"},
    )
    bundle = new_run.new_run(request, run_id(0), 1, _BEGIN)
    task = replace(bundle.run.tasks["task"], status=TaskStatus.SUCCESS)

    def runs() -> Iterator[bytes]:
        for number in range(count):
            made = _BEGIN + timedelta(seconds=60 * number)
            phase, result = _ENDS[number * 37 % 100]
            yield msgspec.json.encode(
                replace(
                    bundle.run,
                    id=run_id(number),
                    counter=number + 1,
                    group=group(number),
                    phase=phase,
                    result=result,
                    enqueue_time=made,
                    start_time=made,
                    end_time=made + timedelta(seconds=50),
                    tasks={"task": replace(task, id=f"t{number}")},
                )
            )

    def configs() -> Iterator[bytes]:
        config = bundle.run_config
        for number in range(count):
            tasks = {f"t{number}": replace(config.tasks["task"], id=f"t{number}")}
            yield msgspec.json.encode(replace(config, id=run_id(number), group=group(number), tasks=tasks))

    for data_type, objects in ((RUN, runs()), (RUN_CONFIG, configs())):
        for number, data in enumerate(objects):
            stored = base64.b64encode(agola_data(data_type, data))
            file.write(
                b'{"id":"%b","data_type":"%b","data":"%b"}\n' % (run_id(number).encode(), data_type.encode(), stored)
            )


if __name__ == "__main__":
    import_runs(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else COUNT)
