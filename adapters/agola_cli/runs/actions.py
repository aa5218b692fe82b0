"""`agola-core runs stop|restart|approve|delete`: changes runs."""

from __future__ import annotations

import click
import msgspec

from agola_cli.connect.run_names import pages, resolve_run
from agola_cli.connect.target import Connection, Service, Target, target_options
from agola_cli.options.common import confirm, json_option, yes_option
from agola_cli.options.variables import environment_option, given_variable
from agola_cli.output.records import counted, printable
from agola_cli.runs.follow import ENDING_SECONDS, follow_run
from agola_cli.runs.interruption import Interruption
from agola_cli.runs.logs import chosen_tasks
from agola_core.errors import BadRequestError, ConflictError
from agola_core.runservice.model.requests import RunBundle, RunCreateRequest, RunQuery
from agola_core.runservice.model.types import Run, RunPhase, RunResult

_MARKED = (
    "marked to be stopped: no service works on this store, and what a killed one left running ends when `agola-core "
    "run` or `serve` works on it next; until then `agola-core runs list` shows it as interrupted"
)


@click.command("stop")
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@target_options
def stop_command(run_ids: tuple[str, ...], target: Target) -> None:
    """Stop runs: what runs is killed, what waits does not start. A queued run is cancelled.

    Where no service works on the store, this command ends what a killed one left running, unless other runs of the
    store did not end: they would go on, too.

    \b
    agola-core runs stop last
    agola-core runs stop RUN --url http://127.0.0.1:4000
    """
    left: list[str] = []
    with target.open_service() as connection:
        service = connection.service
        for named in run_ids:
            run = service.get_run(resolve_run(service, named)).run
            if run.phase is RunPhase.QUEUED:
                service.change_run_phase(run.id, RunPhase.CANCELLED)
            elif run.phase.is_finished:
                raise BadRequestError(f"run {run.id} has ended: {run.phase.value}")
            else:
                service.stop_run(run.id)
                if not connection.live:
                    left.append(run.id)
                    continue
            click.echo(f"run {run.id} is stopped", err=True)
        others = [run for run in _unfinished(service) if run.id not in left] if left else []
    if left:
        ended = () if others else _end_left(target, left)
        for run_id in left:
            click.echo(f"run {run_id} is {'stopped' if run_id in ended else _MARKED}", err=True)


def _unfinished(service: Service) -> list[Run]:
    return list(pages(service, RunQuery(phases=(RunPhase.QUEUED, RunPhase.RUNNING))))


def _end_left(target: Target, run_ids: list[str]) -> set[str]:
    """End the steps of runs that are to be stopped, as the next service would; return the runs that have ended."""
    from agola_core.standalone import Standalone  # noqa: PLC0415 - a client needs no service

    try:
        with Standalone(target.store.used_address()) as standalone:
            standalone.service.wait_archived(run_ids, ENDING_SECONDS)
            return {run_id for run_id in run_ids if standalone.service.get_run(run_id).run.phase.is_finished}
    except ConflictError:  # somebody has just begun to work on it
        return set()


@click.command("restart")
@click.argument("run_id", metavar="RUN")
@click.option("--from-start", is_flag=True, help="Every task anew, not only those that did not succeed.")
@environment_option
@click.option("--detach", is_flag=True, help="Do not follow the new run.")
@target_options
@json_option
def restart_command(
    run_id: str, from_start: bool, environment: tuple[str, ...], detach: bool, target: Target, as_json: bool
) -> int:
    """Run a run that has ended again, as a new run; RUN is an id, a number, or `last`.

    By default the tasks that succeeded keep their results. Follows the new run, and exits with 1 when it fails. Where
    no service works on the store, the run is run here, unless others wait there, too.

    \b
    agola-core runs restart last
    agola-core runs restart '#3' --url http://127.0.0.1:4000
    agola-core runs restart RUN --from-start --detach
    agola-core runs restart last --env DEBUG=1 --json | jq -r '.[].result'
    """
    with target.open_service() as connection:
        service = connection.service
        run = service.get_run(resolve_run(service, run_id)).run
        if run.result is RunResult.SUCCESS and not from_start:
            raise BadRequestError(f"run {run.id} succeeded: say --from-start to run all of it again")
        request = RunCreateRequest(
            run_id=run.id,
            from_start=from_start,
            environment=dict(given_variable(item) for item in environment),
        )
        if connection.live or detach:
            return follow_or_leave(connection, [service.create_run(request)], detach=detach, as_json=as_json)
        if waiting := _unfinished(service):
            raise ConflictError(
                f"no service works on this store, and {counted(waiting, 'run')} in it did not end: "
                "start `agola-core serve`, or say --detach to leave the new run waiting, too"
            )
    from agola_core.standalone import Standalone  # noqa: PLC0415 - a client needs no service

    with Standalone(target.store.used_address()) as standalone:
        bundle = standalone.service.create_run(request)
        here = Connection(standalone.service, live=True, option=connection.option, kill=standalone.kill)
        code = follow_or_leave(here, [bundle], detach=False, as_json=as_json)
        standalone.service.wait_archived([bundle.run.id], ENDING_SECONDS)
    return code


def follow_or_leave(
    connection: Connection,
    bundles: list[RunBundle],
    *,
    detach: bool,
    as_json: bool,
) -> int:
    """Follow new runs to their ends, or only name them; return the exit code.

    Args:
        connection: Where they are.
        bundles: The runs.
        detach: Only name them.
        as_json: Print them as JSON.
    """
    if detach or not connection.live:
        for bundle in bundles:
            click.echo(msgspec.json.encode(bundle.run) if as_json else bundle.run.id)
        if not connection.live:
            click.echo(
                "no service works on this store: `agola-core serve` makes the run go on, "
                "`agola-core run` would cancel it",
                err=True,
            )
        return 0
    with Interruption() as interruption:
        interruption.kill = connection.kill
        results = [
            follow_run(connection.service, bundle, interruption, option=connection.option, as_json=as_json)
            for bundle in bundles
        ]
    if as_json:
        click.echo(msgspec.json.encode(results))
    if interruption.asked:
        return 130
    return 0 if all(run.result is RunResult.SUCCESS for run in results) else 1


@click.command("approve")
@click.argument("run_id", metavar="RUN")
@click.argument("task_names", metavar="[TASK]...", nargs=-1)
@target_options
def approve_command(run_id: str, task_names: tuple[str, ...], target: Target) -> None:
    """Approve the tasks of a run that wait for it: those that are named, or the only one that waits.

    \b
    agola-core runs approve last
    agola-core runs approve RUN deploy --url http://127.0.0.1:4000
    """
    with target.open_service() as connection:
        service = connection.service
        bundle = service.get_run(resolve_run(service, run_id))
        names = {task.id: task.name for task in bundle.run_config.tasks.values()}
        waiting = {names[task.id]: task.id for task in bundle.run.tasks.values() if task.waiting_approval}
        if not task_names and len(waiting) > 1:
            raise BadRequestError(
                f"several tasks wait; name those to approve: {', '.join(map(printable, sorted(waiting)))}"
            )
        if not task_names and not waiting:
            raise BadRequestError(f"no task of run {bundle.run.id} waits for approval")
        if not task_names:
            chosen = list(waiting.items())
        else:
            asked = [(task.name, task.id) for task in chosen_tasks(bundle, task_names)]
            chosen = [item for item in asked if item[0] in waiting or item[0] in task_names]  # the rest of a matrix
            chosen = chosen or asked
        for name, task_id in chosen:
            service.approve_task(bundle.run.id, task_id)
            click.echo(f"approved: {printable(name)}", err=True)


@click.command("delete")
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@yes_option
@target_options
def delete_command(run_ids: tuple[str, ...], dry_run: bool, yes: bool, target: Target) -> None:
    """Delete runs that have ended, with those of their logs and archives that no other run shares.

    \b
    agola-core runs delete RUN --dry-run
    agola-core runs delete RUN RUN --yes
    """
    with target.open_service() as connection:
        service = connection.service
        runs = [service.get_run(resolve_run(service, named)).run for named in run_ids]
        for run in runs:
            if not run.phase.is_finished:
                raise BadRequestError(f"run {run.id} has not ended: {run.phase.value}")
        if dry_run:
            for run in runs:
                click.echo(f"run {run.id} #{run.counter} {run.name!r} would be deleted")
            return
        confirm(f"delete {counted(runs, 'run')}", yes=yes)
        for run in runs:
            service.delete_run(run.id)
            click.echo(f"deleted: {run.id}", err=True)
