"""`agola-core config check`: checks one run configuration, or every one below a directory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import click
import msgspec

from agola_cli.options.common import json_option
from agola_core.errors import ConfigError
from agola_core.runconfig import Config, Finding, FindingKind, find_config, load_config
from agola_core.runconfig.verdict import Verdict, predict_verdict

_SUFFIXES = (".yml", ".yaml", ".json", ".jsonnet", ".star")
_RUNS = re.compile(rb"\bruns\b[\"']?\s*\+?:")
_REFUSED = 2


class Checked(msgspec.Struct, frozen=True):
    """What checking a file gave.

    Attributes:
        error: Why it is refused; None when it is accepted.
        runs: How many tasks each of its runs has.
    """

    file: str
    error: str | None
    runs: dict[str, int]
    warnings: list[Finding]
    agola: Verdict


class Summary(msgspec.Struct, frozen=True):
    """What checking several files gave; those with warnings are accepted ones."""

    files: int
    accepted: int
    with_warnings: int
    refused: int


@click.command("check")
@click.argument("path", type=click.Path(path_type=Path), default=".")
@click.option("--strict", is_flag=True, help="Treat ignored parts as errors.")
@click.option("--agola", is_flag=True, help="Say what a real Agola 0.2 would do with it.")
@json_option
def check_command(path: Path, strict: bool, agola: bool, as_json: bool) -> int:
    """Check the configuration of PATH, a directory or a file; 2 with the first error's place when it is wrong.

    In a directory that has no .agola all files below it are checked that have a key `runs`, and summed up.

    \b
    agola-core config check .
    agola-core config check --strict --agola .agola/config.jsonnet
    agola-core config check --json all-our-configurations/
    """
    if not path.exists():
        raise ConfigError("no such file or directory", source=str(path))
    files, is_many = _files(path)
    checked = [_check(file) for file in files]
    summary = Summary(
        len(checked),
        sum(each.error is None for each in checked),
        sum(each.error is None and bool(each.warnings) for each in checked),
        sum(each.error is not None for each in checked),
    )
    if as_json:
        click.echo(msgspec.json.encode({"summary": summary, "files": checked}))
    else:
        for each in checked:
            _print(each, agola=agola)
        if is_many:
            click.echo(
                f"{summary.files} files: {summary.accepted} accepted ({summary.with_warnings} with warnings), "
                f"{summary.refused} refused"
            )
    return _REFUSED if summary.refused or (strict and summary.with_warnings) else 0


def warn(findings: Iterable[Finding]) -> int:
    """Show warnings to people, and return how many there are."""
    warnings = [finding for finding in findings if finding.kind is FindingKind.WARNING]
    for finding in sorted(warnings, key=lambda finding: finding.line or 0):
        click.echo(f"warning: {finding}", err=True)
    return len(warnings)


def load_with_warnings(file: Path, context: dict[str, str], *, strict: bool) -> Config:
    """Return a configuration, its warnings shown.

    Raises:
        ConfigError: Anything in it is wrong, or, strictly, ignored.
    """
    findings: list[Finding] = []
    try:
        config = load_config(file, findings, context)
    finally:
        count = warn(findings)
    if strict and count:
        raise ConfigError(f"{count} warning{'s' if count > 1 else ''}, which --strict makes errors", source=str(file))
    return config


def _files(path: Path) -> tuple[list[Path], bool]:
    if path.is_file():
        return [path], False
    try:
        return [find_config(path)], False
    except ConfigError as error:
        found = sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
        wanted = [file for file in found if _may_be_configuration(file)]
        if not wanted:
            raise ConfigError(f"{error.message}; there is no file that may be one", source=str(path)) from error
        if left := len(found) - len(wanted):
            click.echo(f"left out: {left} file{'s' if left > 1 else ''} without a key 'runs'", err=True)
        return wanted, True


def _may_be_configuration(file: Path) -> bool:
    """Return whether a file says that it is one: by its place, or by a key `runs`; a program in Starlark may be."""
    if file.parent.name == ".agola" or file.suffix == ".star":
        return True
    try:
        return _RUNS.search(file.read_bytes().replace(b"\0", b"")) is not None  # UTF-16 is read, too
    except OSError:
        return True  # the check says why it cannot be read


def _check(file: Path) -> Checked:
    findings: list[Finding] = []
    runs: dict[str, int] = {}
    refused: ConfigError | None = None
    try:
        runs = {run.name: len(run.tasks) for run in load_config(file, findings).runs}
    except ConfigError as error:
        refused = error
    return Checked(
        str(file),
        None if refused is None else str(refused),
        runs,
        [finding for finding in findings if finding.kind is FindingKind.WARNING],
        predict_verdict(findings, refused=refused is not None),
    )


def _print(checked: Checked, *, agola: bool) -> None:
    warn(checked.warnings)
    if checked.error is not None:
        click.echo(f"agola-core: {checked.error}", err=True)
    for name, tasks in checked.runs.items():
        click.echo(f"{checked.file}: run {name!r}: {tasks} tasks")
    if agola:
        click.echo(f"{checked.file}: {checked.agola.summary}")
        for finding in checked.agola.details:
            click.echo(f"  {finding}")
