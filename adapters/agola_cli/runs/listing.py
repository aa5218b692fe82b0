"""`agola-core runs`: the group of its commands, `runs list` and `runs show`."""

from __future__ import annotations

import shutil
from datetime import datetime

import click
import msgspec

from agola_cli.connect.run_names import pages, resolve_run, runs_before
from agola_cli.connect.target import Target, target_options
from agola_cli.options.common import json_option
from agola_cli.options.types import TIME, Whole
from agola_cli.output.graph import draw_graph
from agola_cli.output.records import coloured, duration, format_options, outcome, print_records
from agola_cli.output.reported import result_lines
from agola_cli.runs.actions import approve_command, delete_command, restart_command, stop_command
from agola_cli.runs.artifacts import artifacts_command
from agola_cli.runs.logs import logs_command
from agola_core.runservice.model.reports import RunTests
from agola_core.runservice.model.requests import RunQuery
from agola_core.runservice.model.types import Run, RunPhase, RunResult


@click.group("runs")
def runs_command() -> None:
    """List runs, show one, read its logs, stop it, start it again.

    \b
    agola-core runs list --result failed --since 7d
    agola-core runs show last
    agola-core runs logs RUN --task build
    agola-core runs restart RUN --url http://127.0.0.1:4000
    """


for _command in (artifacts_command, logs_command, stop_command, restart_command, approve_command, delete_command):
    runs_command.add_command(_command)


@runs_command.command("list")
@click.option("--limit", type=Whole(0), default=25, show_default=True, help="The most runs to list.")
@click.option(
    "--phase",
    "phases",
    multiple=True,
    type=click.Choice([item.value for item in RunPhase]),
    help="Only runs in this phase; repeatable.",
)
@click.option(
    "--result",
    "results",
    multiple=True,
    type=click.Choice([item.value for item in RunResult]),
    help="Only runs with this result; repeatable.",
)
@click.option("--group", "groups", multiple=True, help="Only this group and those below it.")
@click.option(
    "--event", "events", multiple=True, help="Only runs that push, tag, pull_request or manual made begin; repeatable."
)
@click.option("--since", type=TIME, help="Only runs created at or after this time, such as 2h (ago) or 2026-03-01.")
@click.option("--until", type=TIME, help="Only runs created before this time, such as 2h (ago) or 2026-03-01.")
@click.option(
    "--order", type=click.Choice(["newest", "oldest"]), default="newest", show_default=True, help="Which come first."
)
@target_options
@format_options
def list_command(
    limit: int,
    phases: tuple[str, ...],
    results: tuple[str, ...],
    groups: tuple[str, ...],
    events: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    order: str,
    target: Target,
    output: str,
) -> None:
    """List runs, the newest first.

    \b
    agola-core runs list --group /user/local -o csv
    agola-core runs list --phase running --json | jq -r '.[].run.id'
    agola-core runs list --result failed --since 7d --until 1d
    agola-core runs list --event manual --event pull_request
    agola-core runs list --order oldest --limit 10
    """
    query = RunQuery(
        phases=tuple(RunPhase(item) for item in phases),
        results=tuple(RunResult(item) for item in results),
        groups=groups,
        events=tuple(filter(None, events)),
        ascending=order == "oldest",
    )
    with target.open_service() as connection:
        found: list[Run] = []
        for run in pages(connection.service, query):
            if len(found) >= limit:
                break
            if _is_between(run, since, until):
                found.append(run)
        live = connection.live

    def row(record: dict[str, object]) -> tuple[object, ...]:
        run = record["run"]
        assert isinstance(run, Run)
        made = run.enqueue_time.astimezone().strftime("%Y-%m-%d %H:%M") if run.enqueue_time else ""
        branch = run.annotations.get("branch") or run.annotations.get("tag") or run.annotations.get("ref", "")
        commit = run.annotations.get("commit_sha", "")[:8]
        took = duration(run.start_time, run.end_time)
        return run.id, f"#{run.counter}", run.name, record["state"], took, made, branch, commit, run.group

    headings = ("ID", "NUMBER", "NAME", "STATE", "TIME", "DATE", "BRANCH", "COMMIT", "GROUP")
    print_records(output, [_described(run, live) for run in found], headings, row)


@runs_command.command("show")
@click.argument("run_id", metavar="RUN")
@target_options
@json_option
def show_command(run_id: str, target: Target, as_json: bool) -> None:
    """Show a run with the graph of its tasks, when each ran, and what they reported about tests and coverage.

    RUN is an id or its beginning, a number such as 3 or '#3', `last`, or `last^` for the one before.

    \b
    agola-core runs show last
    agola-core runs show 3
    agola-core runs show last --json | jq .run.result
    """
    with target.open_service() as connection:
        bundle, live = connection.service.get_run(resolve_run(connection.service, run_id)), connection.live
        before = runs_before(connection.service, bundle.run)
        run = bundle.run
        reported = any(task.reports for task in run.tasks.values())
        tests = connection.service.run_tests(bundle) if reported else RunTests()
        command = f"agola-core runs show {run.id} --json{connection.option}"
    if as_json:
        configured = sorted(bundle.run_config.tasks.values(), key=lambda item: (item.level, item.name))
        tasks = [{"name": item.name, **msgspec.to_builtins(run.tasks[item.id])} for item in configured]
        shown = {**_described(run, live), "tasks": tasks, "tests": tests, "run_config": bundle.run_config}
        click.echo(msgspec.json.encode(shown))
        return
    took = duration(run.start_time, run.end_time)
    click.echo(f"run {run.id} #{run.counter} {run.name!r}: {coloured(outcome(run, live=live))} {took}".rstrip())
    if not live and not run.phase.is_finished:
        click.echo(f"its phase is {run.phase.value}, and no service works on this store: it was interrupted")
    for other in before:
        click.echo(f"it waits for run {other.id} #{other.counter} of its group, {run.group}")
    for error in bundle.run_config.setup_errors:
        click.echo(f"  error: {error}")
    for line in draw_graph(bundle, shutil.get_terminal_size().columns):
        click.echo(line)
    for line in result_lines(tests, command):
        click.echo(line)


def _is_between(run: Run, since: datetime | None, until: datetime | None) -> bool:
    made = run.enqueue_time
    if made is None:
        return since is None and until is None
    return (since is None or made >= since) and (until is None or made < until)


def _described(run: Run, live: bool) -> dict[str, object]:
    return {"run": run, "state": outcome(run, live=live), "live": live}
