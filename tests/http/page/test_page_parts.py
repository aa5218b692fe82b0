"""The parts of the page that decide without a browser: rows of growing logs, folds of tasks, timelines."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agola_core.runservice.model.requests import RunBundle
from agola_core.runservice.model.types import (
    Depend,
    ExecutorPhase,
    Run,
    RunConfig,
    RunConfigTask,
    RunStep,
    RunTask,
    RunTaskStep,
    TaskStatus,
)
from agola_http.page.log.growing import growing
from agola_http.page.log.log_rows import html, rows
from agola_http.page.run.task_list import choose, choose_step, folds
from agola_http.page.run.timeline import critical_path, timeline
from agola_http.page.views import view_tasks

START = datetime(2030, 1, 1, tzinfo=UTC)


def at(seconds):
    return START + timedelta(seconds=seconds)


def shown(pieces, skip=0):
    """Return what a browser keeps: a row takes the place of the one with its number."""
    found = {}
    for line in b"".join(growing(pieces, skip)).decode().splitlines():
        found[re.search(r'id="[GL](\d+)"', line)[1]] = line
    return list(found.values())


@given(st.lists(st.sampled_from([b"a", b"\n", b"\x1b[31m", b"\x1b[0m", b"", b"\r", b"x" * 17000, "é".encode()])))
def test_a_growing_log_has_the_rows_of_the_stored_one(pieces):
    whole = b"".join(pieces)
    assert shown(pieces) == shown([whole])
    every = shown(pieces)
    assert shown(pieces, 3) == every[3:]


def test_a_growing_log_tells_which_rows_are_in_which_group():
    log = [b"a\n::group::o", b"ne <b>\nin\n", b"::endgroup::\nout\n::group::", b"two\nsti", b"ll"]
    assert shown(log) == shown([b"".join(log)])
    headings = [line for line in shown(log) if line.startswith("<details")]
    assert [re.search(r'id="(L\d+)".*<span>(.*)</span>', line).groups() for line in headings] == [
        ("L2", "one &lt;b&gt;"),
        ("L6", "two"),
    ]
    inside = [line.startswith("<details") or 'in"' in line.partition(">")[0] for line in shown(log)]
    assert inside == [False, True, True, True, False, True, True]
    again, *rest = b"".join(growing([b"".join(log)], 2)).decode().splitlines()  # it goes on after the heading
    assert again.startswith('<details id="G2"')
    assert 'id="L2"' not in again
    assert [line for line in rest if line.startswith("<div")] == [line for line in shown(log)[2:] if "<div" in line]


def text_of(line):
    (row,) = rows([line], 1)
    return "".join(span.text for span in row.spans)


@pytest.mark.parametrize(
    ("line", "left"),
    [
        (b"abc\rX", "Xbc"),
        (b"downloading 100 %\r\x1b[Kdone", "done"),
        (b"spin |\b/\b-", "spin -"),
        (b"ab\x1b[2K\rc", "c "),
        (b"\x1b[32mok\x1b[0m\rno", "no"),
    ],
)
def test_a_cursor_that_goes_back_writes_over(line, left):
    assert text_of(line) == left


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"error: it broke", "bad"),
        (b"12:00:01 ERROR it broke", "bad"),
        (b"Traceback (most recent call last):", "bad"),
        (b"warning: old", "odd"),
        (b"0 errors, all is well", ""),
        (b"0 failed, 3 passed", ""),
        (b"terror", ""),
    ],
)
def test_errors_and_warnings_are_marked(line, kind):
    (row,) = rows([line], 1)
    assert (f'class="{kind}"' in html(row)) is bool(kind)
    assert ("class=" in html(row)) is bool(kind)


def test_a_row_shows_names_as_text_and_leads_where_its_links_lead():
    (row,) = rows([b"see https://x.example/a?b=1&c=(2). <script>alert('\"')</script>"], 3)
    made = html(row)
    assert '<a href="https://x.example/a?b=1&amp;c=(2" target="_blank" rel="noopener noreferrer">' in made
    assert "<script>" not in made
    (row,) = rows([b"javascript:alert(1) http://' onclick='x"], 1)
    assert re.findall(r'(?:href|onclick)="[^"]*"', html(row)) == ['href="#L1"']


def bundle(states, depends=()):
    """Return a run of tasks: for each name its status, and the seconds of its start and end."""
    config = {name: RunConfigTask(id=name, name=name, depends={}) for name in states}
    for child, parent in depends:
        config[child].depends[parent] = Depend(task_id=parent)
    tasks = {
        name: RunTask(
            id=name,
            status=status,
            start_time=at(begin) if begin is not None else None,
            end_time=at(end) if end is not None else None,
            steps=[],
        )
        for name, (status, begin, end) in states.items()
    }
    return RunBundle(Run(id="r", tasks=tasks, start_time=START), RunConfig(id="r", tasks=config))


def test_the_critical_path_is_what_the_end_waited_for():
    run = bundle(
        {
            "build": (TaskStatus.SUCCESS, 0, 5),
            "lint": (TaskStatus.SUCCESS, 0, 9),
            "test": (TaskStatus.SUCCESS, 10, 20),
            "docs": (TaskStatus.SUCCESS, 5, 6),
            "never": (TaskStatus.SKIPPED, None, None),
        },
        [("test", "build"), ("test", "lint"), ("docs", "build"), ("never", "docs")],
    )
    assert critical_path(run, at(30)) == {"lint", "test"}
    drawn = timeline(run, at(30))
    bars = {bar.ids[0]: bar for bar in drawn.bars}
    assert set(bars) == {"build", "lint", "test", "docs"}
    together = timeline(run, at(30), {"build": "f", "docs": "f"})
    assert together.bars[0][:2] == (("build", "docs"), "f")
    assert [(piece.x, piece.width) for piece in together.bars[0].pieces] == [(0.0, 30.0)]
    assert together.height < drawn.height
    queued, ran = bars["test"].pieces
    assert (queued.kind, queued.x, queued.width) == ("queued", 45.0, 5.0)
    assert (ran.kind, ran.x, ran.width) == ("ran", 50.0, 50.0)


def test_a_restarted_run_did_not_wait_for_the_tasks_that_it_kept():
    run = bundle(
        {"kept": (TaskStatus.SUCCESS, -100, -40), "again": (TaskStatus.SUCCESS, 2, 10)},
        [("again", "kept")],
    )
    assert critical_path(run, at(30)) == {"again"}
    bars = {bar.ids[0]: bar for bar in timeline(run, at(30)).bars}
    (kept,) = bars["kept"].pieces
    assert (kept.kind, kept.x, kept.width, kept.drawn) == ("ran", 0.0, 0.0, ("0.0%", "4"))  # it can be seen and met
    assert kept._replace(x=100.0).drawn == ("99.0%", "4")
    assert [(piece.kind, piece.x, piece.width) for piece in bars["again"].pieces] == [
        ("queued", 0.0, 20.0),
        ("ran", 20.0, 80.0),
    ]


def test_a_run_without_begun_tasks_has_no_timeline():
    assert timeline(bundle({"a": (TaskStatus.NOT_STARTED, None, None)}), at(1)).bars == ()


def test_tasks_of_like_names_are_folded_and_failures_stand_first():
    states = {f"part {number}": (TaskStatus.SUCCESS, 0, 1) for number in range(20)}
    states |= {"part 20": (TaskStatus.FAILED, 0, 1), "deploy": (TaskStatus.SUCCESS, 0, 1)}
    tasks = view_tasks(bundle(states), at(2))
    assert choose(tasks).name == "part 20"
    assert [task.name for task in tasks][2:5] == ["part 0", "part 1", "part 2"]
    found = folds(tasks, "", "")
    assert [(fold.name, len(fold.tasks), fold.is_open) for fold in found] == [
        ("", 1, True),
        ("", 1, True),
        ("part …", 20, False),
    ]
    assert [len(fold.tasks) for fold in folds(tasks, "PART 1", "")] == [11]
    assert all(fold.is_open for fold in folds(tasks, "part", ""))
    (fold,) = (fold for fold in found if fold.name)
    assert next(other for other in folds(tasks, "", "", [fold.id]) if other.name).is_open
    chosen = next(task.id for task in tasks if task.name == "part 7")
    assert next(fold for fold in folds(tasks, "", chosen) if fold.name).is_open
    states |= {f"part {number}": (TaskStatus.SUCCESS, 0, 1) for number in range(30, 500)}
    tasks = view_tasks(bundle(states), at(2))
    found = folds(tasks, "", next(task.id for task in tasks if task.name == "part 300"))
    (shown,) = (fold.shown for fold in found if len(fold.tasks) > 400)  # those around the chosen one
    assert [shown[0].name, shown[-1].name] == ["part 280", "part 320"]


def test_many_tasks_without_like_names_are_folded_by_their_state():
    words = ["".join(chr(97 + number // 26**place % 26) for place in range(3)) for number in range(200)]
    states = dict.fromkeys(words, (TaskStatus.SUCCESS, 0, 1)) | {words[5]: (TaskStatus.FAILED, 0, 1)}
    found = folds(view_tasks(bundle(states), at(2)), "", "")
    assert [(fold.name, len(fold.tasks), fold.is_open) for fold in found] == [("", 1, True), ("others", 199, False)]


def test_names_of_any_digits_are_ordered():
    names = ["٣" * 5000, "9" * 5000, "2", "10", "", "a2", "a10"]
    tasks = view_tasks(bundle(dict.fromkeys(names, (TaskStatus.SUCCESS, 0, 1))), at(1))
    assert [task.name for task in tasks if len(task.name) < 4] == ["", "2", "10", "a2", "a10"]


def test_the_step_that_failed_is_chosen():
    run = bundle({"a": (TaskStatus.FAILED, 0, 1)})
    assert choose_step(view_tasks(run, at(1))[0]) is None
    config = replace(run.run_config.tasks["a"], steps=[RunStep(command=name) for name in "abcd"])
    phases = (ExecutorPhase.SUCCESS, ExecutorPhase.FAILED, ExecutorPhase.SUCCESS, ExecutorPhase.NOT_STARTED)
    state = replace(run.run.tasks["a"], steps=[RunTaskStep(phase=phase) for phase in phases])
    begun = RunBundle(replace(run.run, tasks={"a": state}), replace(run.run_config, tasks={"a": config}))
    assert choose_step(view_tasks(begun, at(1))[0]).name == "b"
    set_up = replace(state, setup_step=RunTaskStep(phase=ExecutorPhase.FAILED), steps=[])
    failed = RunBundle(replace(run.run, tasks={"a": set_up}), begun.run_config)
    assert choose_step(view_tasks(failed, at(1))[0]).key == "setup"
