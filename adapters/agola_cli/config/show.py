"""`agola-core config`: the group of its commands, and `config show`, which lists the settings in effect."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import msgspec

from agola_cli.config.check import check_command
from agola_cli.config.settings import find_settings_file, leaf_commands, option_key, options_of
from agola_cli.options.common import json_option
from agola_cli.output.records import print_table


@click.group("config")
def config_command() -> None:
    """Look at run configurations, and at the defaults of these commands."""


config_command.add_command(check_command)


@config_command.command("show")
@click.option("--all", "show_all", is_flag=True, help="Also show built-in defaults.")
@click.pass_context
@json_option
def show_command(context: click.Context, show_all: bool, as_json: bool) -> None:
    """Show which options the settings file and the environment set, and from where each value comes.

    Precedence: command line, environment, the table of a command in agola-core.toml, its top level, the default.

    \b
    agola-core config show --all
    """
    root = context.find_root()
    group = root.command
    assert isinstance(group, click.Group)
    named = root.params.get("config_file")
    file = named if isinstance(named, Path) else find_settings_file(Path.cwd())
    defaults: dict[str, Any] = root.obj.all_defaults(group) if file else {}
    rows = []
    for place, command in leaf_commands(group):
        set_here = _lookup(defaults, place)
        for key, option in options_of(command).items():
            value, source = _effective(root, place, option, set_here, file)
            if show_all or source != "default":
                rows.append({"command": place, "option": key, "value": value, "source": source})
    if as_json:
        click.echo(msgspec.json.encode({"file": str(file) if file else None, "options": rows}))
        return
    click.echo(f"settings file: {file or 'none (agola-core.toml here, above, or in ~/.config/agola-core)'}")
    print_table(
        ("COMMAND", "OPTION", "VALUE", "SOURCE"),
        [(row["command"], row["option"], str(row["value"]), row["source"]) for row in rows],
    )


def _lookup(defaults: dict[str, Any], place: str) -> dict[str, Any]:
    for name in place.split():
        defaults = defaults.get(name, {})
    return defaults


def _effective(
    root: click.Context, place: str, option: click.Option, set_here: dict[str, Any], file: Path | None
) -> tuple[Any, str]:
    for variable in _variables(root, place, option):
        if variable in os.environ:
            return os.environ[variable], variable
    if option.name in set_here:
        return set_here[option.name], str(file)
    default = option.get_default(root, call=False)
    return (None if callable(default) else msgspec.to_builtins(default, enc_hook=str)), "default"


def _variables(root: click.Context, place: str, option: click.Option) -> list[str]:
    if option.envvar:
        return [option.envvar] if isinstance(option.envvar, str) else list(option.envvar)
    prefix = f"{root.auto_envvar_prefix}_{place}".replace(" ", "_").replace("-", "_").upper()
    return [f"{prefix}_{option_key(option).upper()}"]
