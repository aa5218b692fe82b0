"""`agola-core runs`: what has run, and its logs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from agola_cli.display import describe_task, step_name
from agola_cli.options import data_dir_option, existing_data_dir, json_option
from agola_cli.output import coloured, duration, outcome, print_table, task_mark
from agola_core.errors import AgolaError, NotFoundError
from agola_core.runservice.requests import RunBundle, RunQuery
from agola_core.runservice.service import RunService
from agola_core.runservice.types import Run, RunPhase, RunResult
from agola_core.standalone import open_reader


@click.group("runs")
def runs_command() -> None:
    """List runs, show one, read its logs.

    \b
    agola-core runs list --result failed
    agola-core runs show RUN
    agola-core runs logs RUN --task build
    """


@runs_command.command("list")
@click.option("--limit", type=click.IntRange(0), default=25, show_default=True, help="The most runs to list.")
@click.option("--phase", "phases", multiple=True, type=click.Choice([item.value for item in RunPhase]))
@click.option("--result", "results", multiple=True, type=click.Choice([item.value for item in RunResult]))
@click.option("--group", "groups", multiple=True, help="Only this group and those below it.")
@click.option("--order", type=click.Choice(["newest", "oldest"]), default="newest", show_default=True)
@data_dir_option
@json_option
def list_command(
    limit: int,
    phases: tuple[str, ...],
    results: tuple[str, ...],
    groups: tuple[str, ...],
    order: str,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """List runs, the newest first."""
    query = RunQuery(
        phases=tuple(RunPhase(item) for item in phases),
        results=tuple(RunResult(item) for item in results),
        groups=groups,
        limit=limit,
        ascending=order == "oldest",
    )
    with _service(data_dir) as service:
        runs, live = service.list_runs(query), bool(service.live_instances())
    if as_json:
        click.echo(msgspec.json.encode([_described(run, live) for run in runs]))
        return
    rows = [
        (
            run.id,
            f"#{run.counter}",
            run.name,
            outcome(run, live=live),
            run.group,
            duration(run.start_time, run.end_time),
        )
        for run in runs
    ]
    print_table(("ID", "NUMBER", "NAME", "STATE", "GROUP", "TIME"), rows)


@runs_command.command("show")
@click.argument("run_id", metavar="RUN")
@data_dir_option
@json_option
def show_command(run_id: str, data_dir: Path | None, as_json: bool) -> None:
    """Show a run with its tasks; RUN is an id, or `last`."""
    with _service(data_dir) as service:
        bundle, live = service.get_run(_resolve(service, run_id)), bool(service.live_instances())
    if as_json:
        click.echo(msgspec.json.encode({**_described(bundle.run, live), "run_config": bundle.run_config}))
        return
    run = bundle.run
    state = coloured(outcome(run, live=live))
    click.echo(f"run {run.id} #{run.counter} {run.name!r}: {state} {duration(run.start_time, run.end_time)}")
    if state.strip() != run.phase.value and not live and not run.phase.is_finished:
        click.echo(f"its phase is {run.phase.value}, and no service works on this store: it was interrupted")
    for error in bundle.run_config.setup_errors:
        click.echo(f"  error: {error}")
    for task in sorted(bundle.run_config.tasks.values(), key=lambda item: (item.level, item.name)):
        status = run.tasks[task.id]
        above = ", ".join(sorted(bundle.run_config.tasks[parent].name for parent in task.depends or {}))
        after = f" (after {above})" if above else ""
        click.echo(f"{'  ' * (task.level + 1)}{task_mark(status.status)} {task.name}{after}: {describe_task(status)}")


@runs_command.command("logs")
@click.argument("run_id", metavar="RUN")
@click.option("--task", "task_name", help="Only this task.")
@click.option("--step", type=click.IntRange(0), help="Only this step, from 0.")
@click.option("--setup", is_flag=True, help="The log of the task's set-up.")
@data_dir_option
def logs_command(run_id: str, task_name: str | None, step: int | None, setup: bool, data_dir: Path | None) -> None:
    """Print the logs of a run; RUN is an id, or `last`."""
    with _service(data_dir) as service:
        bundle = service.get_run(_resolve(service, run_id))
        output = sys.stdout.buffer
        for task_id, number, title in _logs(bundle, task_name, step, setup=setup):
            try:
                pieces = service.open_log(bundle.run.id, task_id, number)
            except AgolaError:
                if step is not None or setup:
                    raise
                continue
            if step is None and not setup:
                click.echo(f"--- {title}", err=True)
            for piece in pieces:
                output.write(piece)
            output.flush()


def _logs(
    bundle: RunBundle, task_name: str | None, step: int | None, *, setup: bool
) -> Iterator[tuple[str, int | None, str]]:
    tasks = sorted(bundle.run_config.tasks.values(), key=lambda item: (item.level, item.name))
    if task_name is not None:
        tasks = [task for task in tasks if task.name == task_name]
        if not tasks:
            raise NotFoundError(f"run {bundle.run.id} has no task {task_name!r}")
    for task in tasks:
        if setup:
            yield task.id, None, f"{task.name}: set-up"
            continue
        for number, item in enumerate(task.steps):
            if step is None or number == step:
                yield task.id, number, f"{task.name}: {step_name(item)}"


@contextmanager
def _service(data_dir: Path | None) -> Iterator[RunService]:
    datamanager, service = open_reader(existing_data_dir(data_dir))
    try:
        yield service
    finally:
        service.close()
        datamanager.close()


def _resolve(service: RunService, run_id: str) -> str:
    if run_id != "last":
        return run_id
    found = service.list_runs(RunQuery(limit=1))
    if not found:
        raise NotFoundError("nothing has run yet")
    return found[0].id


def _described(run: Run, live: bool) -> dict[str, object]:
    return {"run": run, "state": outcome(run, live=live), "live": live}
