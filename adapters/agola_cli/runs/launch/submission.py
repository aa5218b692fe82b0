"""Turns the run configuration of a directory into the requests that create its runs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import msgspec

from agola_cli.config.check import load_with_warnings
from agola_cli.options.common import bundled
from agola_cli.options.variables import GivenValues
from agola_cli.runs.launch.checkout import Checkout, checkout_as, describe_checkout
from agola_cli.runs.launch.selection import Selection
from agola_core.errors import ConfigError
from agola_core.runconfig import RunContext, find_config, run_tasks
from agola_core.runconfig.convert import choose_runs
from agola_core.runconfig.model import CloneStep, Config, RunDefinition, Variable
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.run_event import MANUAL, TRIGGER
from agola_core.runservice.model.types import RunConfigTask

_EVERYTHING = Selection()


class Submission(msgspec.Struct, frozen=True):
    """What is about to be run.

    Attributes:
        tree: The directory that goes to the tasks.
        config: Its configuration.
        runs: Those of its runs that are made.
        checkout: What git says, or the person.
        variables: What `from_variable` names; their values are secret.
        selection: Which tasks of the runs.
    """

    tree: Path
    config: Config
    runs: list[RunDefinition]
    checkout: Checkout
    variables: dict[str, str]
    selection: Selection = Selection()

    @property
    def clones(self) -> bool:
        """Whether any step takes the tree."""
        steps = (step for run in self.runs for task in run.tasks for step in task.steps)
        return any(isinstance(step, CloneStep) for step in steps)

    def tasks(self, run: RunDefinition, source: str = "") -> dict[str, RunConfigTask]:
        """Return the selected tasks of one of the runs, by new ids.

        Args:
            run: One of `runs`.
            source: The id of the packed tree.
        """
        context = RunContext(self.checkout.branch, self.checkout.tag, self.checkout.ref, self.variables, source)
        return self.selection.of(run_tasks(self.config, run, context, lambda: str(uuid.uuid4())))

    def request(
        self,
        run: RunDefinition,
        *,
        source: str,
        group: str,
        cache_group: str,
        given: GivenValues,
        user: str,
    ) -> RunCreateRequest:
        """Return the request that makes one of the runs.

        Args:
            run: One of `runs`.
            source: The id of the packed tree.
            group: The run's group.
            cache_group: Who shares its caches.
            given: The environment that overrides every other, and secrets.
            user: Who starts it; "" for somebody without a name.
        """
        return RunCreateRequest(
            run_config_tasks=self.tasks(run, source),
            name=run.name,
            group=group,
            static_environment=self.checkout.environment,
            environment={**given.environment, **given.secrets},
            secrets=[*self.variables.values(), *given.secrets.values()],
            cache_group=cache_group,
            annotations={**self.checkout.annotations, TRIGGER: MANUAL, **({"user": user} if user else {})},
        )


class Wanted(msgspec.Struct, frozen=True):
    """What a command's options ask to run.

    Attributes:
        path: A directory, or a configuration file in it.
        run_name: Only this run; "" for all.
        branch: As if on this branch.
        tag: As if on this tag.
        ref: As if on this git reference.
    """

    path: Path
    run_name: str
    branch: str | None
    tag: str | None
    ref: str | None

    def checkout(self, path: Path) -> Checkout | None:
        """Return what the options say of a directory's checkout; None when git is to be asked.

        Raises:
            BadRequestError: More than one of branch, tag and reference is given.
        """
        return checkout_as(path, self.branch, self.tag, self.ref)


wanted_options = bundled(
    "wanted",
    Wanted,
    click.argument("path", type=click.Path(path_type=Path), default="."),
    click.option("--run", "run_name", metavar="NAME", default="", help="Only this run of the configuration."),
    click.option("--branch", help="Run as if on this branch, such as master."),
    click.option("--tag", help="Run as if on this tag, such as v1.0."),
    click.option("--ref", help="Run as if on this git reference, such as refs/pull/7/head."),
)


def prepare(
    path: Path,
    *,
    run_name: str = "",
    checkout: Checkout | None = None,
    variables: dict[str, str] | None = None,
    strict: bool = False,
    selection: Selection = _EVERYTHING,
) -> Submission:
    """Return what the configuration of a directory or a file asks for.

    Args:
        path: The directory, or a configuration file in it.
        run_name: Only this run.
        checkout: As if git said this; None asks git.
        variables: What `from_variable` names.
        strict: Whether the configuration's warnings are errors.
        selection: Which tasks of its runs; runs without any are left out.

    Raises:
        ConfigError: There is no configuration, it is wrong, or asks for nothing.
    """
    tree = tree_of_path(path)
    config_file = path if path.is_file() else find_config(path)
    checkout = checkout or describe_checkout(tree)
    config = load_with_warnings(config_file, checkout.jsonnet_context, strict=strict)
    context = RunContext(checkout.branch, checkout.tag, checkout.ref, variables or {})
    chosen = choose_runs(config, context, run_name)
    if not chosen:
        raise ConfigError("no run's condition holds for this branch, tag and ref", source=str(config_file))
    for run in chosen:
        if not run.tasks:
            raise ConfigError(f"run {run.name!r} has no tasks", source=str(config_file))
    _warn_unused(config, variables or {})
    selection.check({task.name for run in chosen for task in run.tasks})
    made = Submission(tree, config, chosen, checkout, variables or {}, selection)
    return msgspec.structs.replace(made, runs=[run for run in chosen if made.tasks(run)])


def _warn_unused(config: Config, variables: dict[str, str]) -> None:
    """Warn about variables that the configuration does not ask for: most are misspelt."""
    used = set(_variables(config))
    for name in variables:
        if name not in used:
            known = f"; it names {', '.join(sorted(used))}" if used else ""
            click.echo(f"warning: --var {name}: no from_variable of the configuration names it{known}", err=True)


def _variables(value: object) -> Iterator[str]:
    if isinstance(value, Variable):
        yield value.name
    elif isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            yield from _variables(getattr(value, field))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _variables(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _variables(item)


def tree_of_path(path: Path) -> Path:
    """Return the directory that a directory or a configuration file is for.

    Raises:
        ConfigError: There is nothing.
    """
    if not path.exists():
        raise ConfigError("no such file or directory", source=str(path))
    return tree_of(path) if path.is_file() else path


def tree_of(config_file: Path) -> Path:
    """Return the directory that a configuration file is for."""
    parent = config_file.resolve().parent
    return parent.parent if parent.name == ".agola" else parent
