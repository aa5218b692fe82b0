"""Names that somebody else wrote, such as whoever opened a pull request, command no terminal and make no lines."""

import io
import tarfile

import pytest

from agola_cli.output.display import PlainDisplay
from agola_cli.output.graph import draw_graph
from agola_cli.output.live_display import panel
from agola_cli.output.records import print_table
from agola_cli.runs.artifacts import unpack_artifacts
from agola_cli.runs.launch.plan import graph_lines, plan, print_plan
from agola_cli.runs.logs import _logs
from agola_core.runservice.model.reports import RunTests
from agola_core.runservice.model.requests import RunBundle
from agola_core.runservice.model.types import (
    ExecutorPhase,
    Run,
    RunConfig,
    RunConfigTask,
    RunPhase,
    RunResult,
    RunStep,
    RunTask,
    RunTaskStep,
    TaskStatus,
)

NAME = "a\x1b]0;title\x07\x1b[2J\rb\nc\u202e"
ITEM = RunConfigTask(id="t", name=NAME, steps=[RunStep(name=NAME, command="x")], depends={})
TASK = RunTask(id="t", status=TaskStatus.FAILED, waiting_approval=True, steps=[RunTaskStep(phase=ExecutorPhase.FAILED)])
RUN = Run(id="r", name=NAME, phase=RunPhase.FINISHED, result=RunResult.FAILED, tasks={"t": TASK})
BUNDLE = RunBundle(RUN, RunConfig(id="r", name=NAME, tasks={"t": ITEM}))


def _display():
    display = PlainDisplay(BUNDLE)
    with display:
        display.show(RUN, ["t"])
        display.step("t", 0)
        display.line("t", "its own line")
        display.end_run(RUN, RunTests(), "")


@pytest.mark.parametrize(
    ("show", "lines"),
    [
        (_display, 11),
        (lambda: print(*draw_graph(BUNDLE, 80), sep="\n"), 1),
        (lambda: print(*[line for line, _ in panel(RUN, {"t": ITEM}, 9)], sep="\n"), 1),
        (lambda: print(*[title for *_, title in _logs([ITEM], None, setup=False)], sep="\n"), 1),
        (lambda: print_table(("NAME", "STATE"), [(NAME, "failed")]), 2),
        (lambda: print_plan(NAME, plan({"t": ITEM})), 3),
        (lambda: print(*graph_lines(NAME, plan({"t": ITEM}), "text"), sep="\n"), 2),
    ],
    ids=["display", "graph", "panel", "titles of logs", "table", "plan", "graph of a plan"],
)
def test_what_is_shown_of_a_name_is_text_on_one_line(show, lines, capsys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    show()
    text = capsys.readouterr().out
    assert len(text.splitlines()) == lines, text
    assert not [character for character in text if character != "\n" and not character.isprintable()]


def test_artifacts_of_tasks_with_names_too_long_for_a_file_come_out_apart(tmp_path):
    class Service:
        def open_archive(self, run_id, task_id, step):
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as archive:
                archive.addfile(tarfile.TarInfo(task_id))
            return iter([packed.getvalue()])

    tasks = {name: RunTask(id=name, workspace_archives=[0]) for name in "ab"}
    items = {name: RunConfigTask(id=name, name=f"{'ü' * 300} {name}") for name in "ab"}
    bundle = RunBundle(Run(id="r", tasks=tasks), RunConfig(id="r", tasks=items))
    unpack_artifacts(Service(), bundle, (), tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("?")) == ["a", "b"]
    assert len(list(tmp_path.iterdir())) == 2
