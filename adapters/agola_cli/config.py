"""`agola-core config`: look at a run configuration without running it."""

from __future__ import annotations

from pathlib import Path

import click

from agola_core.errors import ConfigError
from agola_core.runconfig import find_config, load_config


@click.group("config")
def config_command() -> None:
    """Look at run configurations."""


@config_command.command("check")
@click.argument("path", type=click.Path(path_type=Path), default=".")
def check_command(path: Path) -> None:
    """Check the configuration of PATH, a directory or a file; 2 with the first error's place when it is wrong."""
    if not path.exists():
        raise ConfigError("no such file or directory", source=str(path))
    file = path if path.is_file() else find_config(path)
    config = load_config(file)
    for run in config.runs:
        click.echo(f"{file}: run {run.name!r}: {len(run.tasks)} tasks")
