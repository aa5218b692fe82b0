"""`agola-core run`: runs the configuration of a directory in this process, from its tasks to its result."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import quote

import click
import msgspec

from agola_cli.connect.run_names import resolve_run
from agola_cli.options.common import json_option, processors
from agola_cli.options.directories import DirectoryType, data_dir_option, default_data_dir
from agola_cli.options.variables import GivenValues, given_options
from agola_cli.runs.artifacts import unpack_artifacts
from agola_cli.runs.follow import follow_run, stop_run
from agola_cli.runs.interruption import Interruption
from agola_cli.runs.launch.disk_check import DiskCheck
from agola_cli.runs.launch.plan import graph_lines, plan, print_plan
from agola_cli.runs.launch.selection import Selection, selection_options
from agola_cli.runs.launch.submission import Submission, Wanted, prepare, wanted_options
from agola_core.errors import BadRequestError
from agola_core.executor import ExecutorOptions
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import Run, RunResult
from agola_core.runservice.service import RunService
from agola_core.source import pack_tree
from agola_core.standalone import Standalone

_ENDING_SECONDS = 15.0
_OF_A_NEW_RUN = (
    *("run_name", "branch", "tag", "ref", "names", "starts", "alone"),
    *("list_only", "graph", "strict", "variables", "variable_files"),
)
"""What chooses the runs and tasks of a new run."""


@click.command("run")
@wanted_options
@selection_options
@given_options
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1),
    default=processors,
    show_default="the processors",
    help="How many tasks run at once.",
)
@click.option("--fail-fast", is_flag=True, help="Stop the run when a task has failed.")
@click.option("--failed", is_flag=True, help="Run again what did not succeed in the last run, and what depends on it.")
@click.option("--list", "--dry-run", "list_only", is_flag=True, help="Only list the tasks, and which would be skipped.")
@click.option(
    "--graph", type=click.Choice(["text", "dot", "mermaid"]), help="Only print the graph of the tasks, in this form."
)
@click.option("--artifacts", type=DirectoryType(), help="Unpack what the tasks save to the workspace here, at the end.")
@click.option("--strict", is_flag=True, help="Treat what the configuration says and is ignored as an error.")
@data_dir_option
@json_option
def run_command(
    wanted: Wanted,
    selection: Selection,
    given: GivenValues,
    jobs: int,
    fail_fast: bool,
    failed: bool,
    list_only: bool,
    graph: str | None,
    artifacts: Path | None,
    strict: bool,
    data_dir: Path | None,
    as_json: bool,
) -> int:
    """Run the configuration of PATH, a directory or a file, on this machine.

    The tree goes to every task as it lies there: tracked and untracked files, ignored ones left out. Ends with 0
    when the runs succeed, with 1 when one fails, with 2 when the configuration is wrong.

    \b
    agola-core run .
    agola-core run ~/project --run tests --env PIP_INDEX_URL
    agola-core run . --secret API_TOKEN --secret-file KEY=key.pem
    agola-core run . --env-file ci.env --var-file variables.yml --jobs 4
    agola-core run --list                 which tasks there are, and which would be skipped
    agola-core run --graph mermaid
    agola-core run --task build --alone
    agola-core run --from deploy --fail-fast
    agola-core run --artifacts dist       what the tasks save to the workspace, too
    agola-core run --failed               with the files and the results of the last run
    """
    if failed:
        _check_alone(click.get_current_context())
    with Interruption() as interruption:
        submission = None
        if not failed:
            submission = prepare(
                wanted.path,
                run_name=wanted.run_name,
                checkout=wanted.checkout(wanted.path),
                variables=given.variables,
                strict=strict,
                selection=selection,
            )
            if list_only or graph:
                _print_plan(submission, graph, as_json=as_json)
                return 0
        directory = data_dir or default_data_dir(submission.tree if submission else wanted.path)
        option = f" --data-dir {shlex.quote(str(data_dir))}" if data_dir else ""
        results: list[Run] = []
        with Standalone(directory, executor=ExecutorOptions(active_tasks_limit=jobs)) as standalone:
            interruption.kill = standalone.kill
            service = standalone.service
            _end_leftovers(service)
            requests = (
                [_repeat(service, given)] if submission is None else _requests(service, submission, given, directory)
            )
            for request in requests:
                if interruption.asked:
                    break
                bundle = service.create_run(request)
                run = follow_run(
                    service,
                    bundle,
                    interruption,
                    option=option,
                    as_json=as_json,
                    fail_fast=fail_fast,
                    check=DiskCheck(directory, interruption),
                )
                results.append(run)
            service.wait_archived([run.id for run in results], _ENDING_SECONDS)
            for run in results if artifacts else ():
                assert artifacts is not None
                unpack_artifacts(service, service.get_run(run.id), (), artifacts)
    if as_json:
        click.echo(msgspec.json.encode(results))
    if interruption.asked:
        return 130
    return 0 if all(run.result is RunResult.SUCCESS for run in results) else 1


def _check_alone(context: click.Context) -> None:
    """Check that no option asks for what a run that is repeated does not take from the command line.

    Raises:
        click.UsageError: One does.
    """
    for name in _OF_A_NEW_RUN:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = next(item for item in context.command.params if item.name == name)
            raise click.UsageError(f"--failed repeats the last run as it was: leave {option.opts[0]} out")


def _print_plan(submission: Submission, form: str | None, *, as_json: bool) -> None:
    plans = {run.name: plan(submission.tasks(run)) for run in submission.runs}
    if as_json:
        click.echo(msgspec.json.encode([{"run": name, "tasks": tasks} for name, tasks in plans.items()]))
        return
    for name, tasks in plans.items():
        if form is None:
            print_plan(name, tasks)
        else:
            click.echo("\n".join(graph_lines(name, tasks, form)))
    for run in submission.config.runs:
        if form is None and run.name not in plans:
            click.echo(f"run {run.name!r}: not run, it is not asked for or its `when` does not hold")


def _requests(
    service: RunService, submission: Submission, given: GivenValues, directory: Path
) -> list[RunCreateRequest]:
    source = ""
    if submission.clones:
        source = service.put_source(pack_tree(submission.tree, left_out=directory, include_repository=True))
    return [
        submission.request(
            definition,
            source=source,
            group=f"/user/local/branch/{quote(submission.checkout.branch or 'none', safe='')}",
            cache_group=f"local-{directory.name}",
            given=given,
        )
        for definition in submission.runs
    ]


def _repeat(service: RunService, given: GivenValues) -> RunCreateRequest:
    """Return the request that runs again what did not succeed in the last run.

    Raises:
        BadRequestError: It succeeded.
        NotFoundError: Nothing has run yet.
    """
    run = service.get_run(resolve_run(service, "last")).run
    if run.result is RunResult.SUCCESS:
        raise BadRequestError(f"run {run.id} #{run.counter}, the last one, succeeded: nothing of it failed")
    made = f" of {run.enqueue_time.astimezone():%Y-%m-%d %H:%M}" if run.enqueue_time else ""
    click.echo(
        f"again: run {run.id} {run.name!r} #{run.counter} of {run.group}{made}, with its files and its configuration, "
        "not those that are here now",
        err=True,
    )
    return RunCreateRequest(
        run_id=run.id,
        environment={**given.environment, **given.secrets},
        secrets=list(given.secrets.values()),
    )


def _end_leftovers(service: RunService) -> None:
    """Stop what a killed process left behind: this command's runs end with it."""
    for run in service.active_runs():
        if not run.phase.is_finished:
            click.echo(f"run {run.id} was interrupted earlier: it is stopped now", err=True)
            stop_run(service, run.id)
