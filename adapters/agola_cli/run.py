"""`agola-core run`: one run of a directory, from its configuration to its result, in this process."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from pathlib import Path
from types import FrameType
from urllib.parse import quote

import click
import msgspec

from agola_cli.checkout import describe_checkout
from agola_cli.display import Display, LiveDisplay, PlainDisplay
from agola_cli.follow import LogFollower
from agola_cli.options import data_dir_option, default_data_dir, json_option
from agola_core.errors import AgolaError, BadRequestError, ConfigError
from agola_core.runconfig import RunContext, find_config, load_config, run_tasks
from agola_core.runconfig.convert import choose_runs
from agola_core.runservice.requests import RunBundle, RunCreateRequest
from agola_core.runservice.service import RunService
from agola_core.runservice.types import Run, RunPhase, RunResult
from agola_core.source import pack_tree
from agola_core.standalone import Standalone

_WAIT_SECONDS = 0.5
_ENDING_SECONDS = 15.0


@click.command("run")
@click.argument("path", type=click.Path(path_type=Path), default=".")
@click.option("--run", "run_name", metavar="NAME", help="Only this run of the configuration.")
@click.option("--env", "environment", multiple=True, metavar="NAME[=VALUE]", help="Give a variable to every task.")
@click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="A value for from_variable.")
@click.option("--branch", help="Run as if on this branch.")
@click.option("--tag", help="Run as if on this tag.")
@click.option("--ref", help="Run as if on this git reference.")
@data_dir_option
@json_option
def run_command(
    path: Path,
    run_name: str | None,
    environment: tuple[str, ...],
    variables: tuple[str, ...],
    branch: str | None,
    tag: str | None,
    ref: str | None,
    data_dir: Path | None,
    as_json: bool,
) -> int:
    """Run the configuration of PATH, a directory or a file, on this machine.

    The tree goes to every task as it lies there: tracked and untracked files, ignored ones left out. Ends with 0
    when the runs succeed, with 1 when one fails, with 2 when the configuration is wrong.

    \b
    agola-core run .
    agola-core run ~/project --run tests --env PIP_INDEX_URL
    """
    if not path.exists():
        raise ConfigError("no such file or directory", source=str(path))
    config_file = path if path.is_file() else find_config(path)
    config = load_config(config_file)
    tree = _tree_of(config_file) if path.is_file() else path
    checkout = describe_checkout(tree)
    if branch or tag or ref:
        checkout = msgspec.structs.replace(checkout, branch=branch or "", tag=tag or "", ref=ref or checkout.ref)
    values = dict(_pair(item) for item in variables)
    context = RunContext(checkout.branch, checkout.tag, checkout.ref, values)
    chosen = choose_runs(config, context, run_name or "")
    if not chosen:
        raise ConfigError("no run's condition holds for this branch, tag and ref", source=str(config_file))
    given = dict(_given(item) for item in environment)
    directory = data_dir or default_data_dir(tree)
    interruption = _Interruption()
    results: list[Run] = []
    with interruption, Standalone(directory) as standalone:
        service = standalone.service
        _end_leftovers(service)
        source = service.put_source(pack_tree(tree))
        context = msgspec.structs.replace(context, source=source)
        for definition in chosen:
            bundle = service.create_run(
                RunCreateRequest(
                    run_config_tasks=run_tasks(config, definition, context, lambda: str(uuid.uuid4())),
                    name=definition.name,
                    group=f"/user/local/branch/{quote(checkout.branch or 'none', safe='')}",
                    static_environment=checkout.environment,
                    environment=given,
                    cache_group=f"local-{directory.name}",
                )
            )
            display: Display = LiveDisplay(bundle) if _wants_live(as_json) else PlainDisplay(bundle, err=as_json)
            results.append(_follow(service, bundle, display, interruption))
            if interruption.asked:
                break
        _wait_archived(service, results)
    if as_json:
        click.echo(msgspec.json.encode(results))
    else:
        _print_next(results, directory, data_dir is not None)
    if interruption.asked:
        return 130
    return 0 if all(run.result is RunResult.SUCCESS for run in results) else 1


class _Interruption:
    """Turns Ctrl-C and SIGTERM into a request to stop; a second one ends the process at once."""

    def __init__(self) -> None:
        self.asked = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._take)

    def __exit__(self, *_: object) -> None:
        for number in self._previous:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

    def _take(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's
        if self.asked:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.asked = True


def _follow(service: RunService, bundle: RunBundle, display: Display, interruption: _Interruption) -> Run:
    """Show a run until it ends, and return it."""
    run = bundle.run
    stopped = False
    follower = LogFollower(service, display)
    with display:
        while True:
            display.show(run)
            follower.take(run)
            if run.phase.is_finished:
                break
            if interruption.asked and not stopped:
                stopped = True
                display.say("interrupted: stopping the run")
                _stop(service, run)
            run = service.wait_change(run, _WAIT_SECONDS)
        follower.join()
        display.show(run)
    return run


def _stop(service: RunService, run: Run) -> None:
    try:
        service.stop_run(run.id)
    except AgolaError:
        try:
            service.change_run_phase(run.id, RunPhase.CANCELLED)
        except AgolaError:
            return  # it has ended meanwhile


def _end_leftovers(service: RunService) -> None:
    """Stop what a killed process left behind: this command's runs end with it."""
    for run in service.active_runs():
        if not run.phase.is_finished:
            click.echo(f"run {run.id} was interrupted earlier: it is stopped now", err=True)
            _stop(service, run)


def _wait_archived(service: RunService, runs: list[Run]) -> None:
    waiting = [run.id for run in runs]
    service.wait_archived(waiting, _ENDING_SECONDS)


def _print_next(runs: list[Run], directory: Path, named: bool) -> None:
    option = f" --data-dir {directory}" if named else ""
    for run in runs:
        click.echo(f"look at it again: agola-core runs show {run.id}{option}")
        click.echo(f"its logs:         agola-core runs logs {run.id}{option}")


def _wants_live(as_json: bool) -> bool:
    return sys.stdout.isatty() and not as_json


def _tree_of(config_file: Path) -> Path:
    parent = config_file.resolve().parent
    return parent.parent if parent.name == ".agola" else parent


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise BadRequestError(f"expected NAME=VALUE, not {text!r}")
    return name, value


def _given(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name:
        raise BadRequestError(f"expected NAME or NAME=VALUE, not {text!r}")
    return name, value if separator else os.environ.get(name, "")
