"""`agola-core run`: runs the configuration of a directory in this process, from its tasks to its result."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import msgspec

from agola_cli.connect.run_names import resolve_run
from agola_cli.options.common import json_option, processors
from agola_cli.options.directories import DirectoryType, data_dir_option, default_data_dir
from agola_cli.options.types import Whole
from agola_cli.options.variables import GivenValues, given_options
from agola_cli.runs.interruption import Interruption
from agola_cli.runs.launch.selection import Selection, selection_options
from agola_cli.runs.launch.session import Session
from agola_cli.runs.launch.submission import Submission, Wanted, prepare, tree_of_path, wanted_options
from agola_core.errors import BadRequestError
from agola_core.executor import ExecutorOptions
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import RunResult
from agola_core.runservice.service import RunService
from agola_core.standalone import Standalone

_OF_A_NEW_RUN = (
    *("run_name", "branch", "tag", "ref", "names", "starts", "alone"),
    *("list_only", "graph", "strict", "variables", "variable_files", "watch"),
)
"""What chooses the runs and tasks of a new run."""

_OF_ONE_RUN = ("list_only", "graph", "shell_tasks")


@click.command("run")
@wanted_options
@selection_options
@given_options
@click.option(
    "-j",
    "--jobs",
    type=Whole(1),
    default=processors,
    show_default="the processors",
    help="How many tasks run at once.",
)
@click.option("--fail-fast", is_flag=True, help="Stop the run when a task has failed.")
@click.option("--failed", is_flag=True, help="Run again what did not succeed in the last run, and what depends on it.")
@click.option("--watch", is_flag=True, help="Run again whenever files change; a run in progress is stopped before.")
@click.option(
    "--shell",
    "shell_tasks",
    multiple=True,
    metavar="TASK",
    help="If this task fails, open a shell where its step failed, with that step's environment; repeatable.",
)
@click.option("--timestamps", is_flag=True, help="Show before each line of a log when it was written.")
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
    watch: bool,
    shell_tasks: tuple[str, ...],
    timestamps: bool,
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
    agola-core run --list --tag v1.0      as if on this tag; --branch master, --ref refs/pull/7/head
    agola-core run --graph mermaid
    agola-core run --strict --var TOKEN=t --json | jq -r '.[].result'
    agola-core run --task build --alone
    agola-core run --from deploy --fail-fast
    agola-core run --artifacts dist       what the tasks save to the workspace, too
    agola-core run --watch                again whenever a file changes, until Ctrl-C
    agola-core run --timestamps           each line of a log with its time
    agola-core run --shell build          where a step of build has failed
    agola-core run --failed               with the files and the results of the last run
    """
    _check_together(click.get_current_context(), failed=failed, watch=watch, shell=bool(shell_tasks))

    def prepared() -> Submission:
        return prepare(
            wanted.path,
            run_name=wanted.run_name,
            checkout=wanted.checkout(wanted.path),
            variables=given.variables,
            strict=strict,
            selection=selection,
        )

    with Interruption() as interruption:
        submission = None if failed or watch else prepared()
        if submission and (list_only or graph):
            _print_plan(submission, graph, as_json=as_json)
            return 0
        if submission:
            Selection(shell_tasks).check({task.name for run in submission.runs for task in run.tasks})
        if artifacts is not None:
            from agola_cli.runs.artifacts import check_output  # noqa: PLC0415 - few use it

            check_output(artifacts, "--artifacts")
        tree = submission.tree if submission else tree_of_path(wanted.path)
        directory = data_dir or default_data_dir(tree)
        executor = ExecutorOptions(active_tasks_limit=jobs, keep_failed=bool(shell_tasks))
        with Standalone(directory, executor=executor) as standalone:
            interruption.kill = standalone.kill
            session = Session(
                standalone,
                directory,
                interruption,
                f" --data-dir {shlex.quote(str(data_dir))}" if data_dir else "",
                given,
                artifacts,
                shell_tasks,
                fail_fast,
                timestamps,
                as_json,
            )
            session.end_leftovers()
            if watch:
                from agola_cli.runs.launch.watch import TreeWatcher, run_on_changes  # noqa: PLC0415 - few use it

                others = [wanted.path] if wanted.path.is_file() else []
                left_out = [directory, *([artifacts] if artifacts else [])]
                return run_on_changes(session, prepared, TreeWatcher(tree, others, left_out))
            requests = session.requests(submission) if submission else [_repeat(standalone.service, given)]
            results = session.run(requests)
            if not interruption.asked:
                session.open_shells(results)
            return session.exit_code(results)


def _check_together(context: click.Context, *, failed: bool, watch: bool, shell: bool) -> None:
    """Check that options go together.

    Raises:
        click.UsageError: Two do not.
    """
    refused = [
        *((name, "--failed repeats the last run as it was") for name in _OF_A_NEW_RUN if failed),
        *((name, "--watch runs new runs until Ctrl-C") for name in _OF_ONE_RUN if watch),
        *((name, "--shell has the terminal at the end of the run") for name in ("as_json",) if shell),
    ]
    for name, reason in refused:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = next(item for item in context.command.params if item.name == name)
            raise click.UsageError(f"{reason}: leave {option.opts[0]} out")


def _print_plan(submission: Submission, form: str | None, *, as_json: bool) -> None:
    from agola_cli.runs.launch.plan import graph_lines, plan, print_plan  # noqa: PLC0415 - few use it

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
