"""Reads `agola-core.toml`, which holds defaults for the commands' options.

A key is an option's long name with underscores. At the top level it holds for every command that has the option,
in a table named after a command for that command alone::

    url = "http://127.0.0.1:4000"

    [serve]
    port = 4100

    [runs.list]
    limit = 50

Precedence: an option on the command line, its environment variable, the file's table, the file's top level, the
built-in default.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from agola_core.encoding.suggestions import did_you_mean
from agola_core.errors import ConfigError

FILE_NAME = "agola-core.toml"
VARIABLE = "AGOLA_CONFIG"


def find_settings_file(directory: Path) -> Path | None:
    """Return the settings file for a directory: its own, a parent's, or the user's; None if there is none."""
    for place in (directory, *directory.parents):
        if (place / FILE_NAME).is_file():
            return place / FILE_NAME
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    user = base / "agola-core" / FILE_NAME
    return user if user.is_file() else None


def read_settings(file: Path) -> dict[str, Any]:
    """Return a settings file as it stands.

    Raises:
        ConfigError: It cannot be read, or is not TOML.
    """
    import tomllib  # noqa: PLC0415 - few use it

    try:
        return tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", source=str(file)) from error
    except RecursionError as error:
        raise ConfigError("nested too deeply", source=str(file)) from error
    except ValueError as error:  # TOML's own, and that of a number of thousands of digits
        raise ConfigError(str(error), source=str(file)) from error


def options_of(command: click.Command) -> dict[str, click.Option]:
    """Return a command's options that a file may set, by the names that they have there."""
    found: dict[str, click.Option] = {}
    taken: set[str | None] = {"help", "version"}
    for param in command.params:
        if isinstance(param, click.Option) and not param.is_eager and param.name not in taken:
            taken.add(param.name)  # a second option of the same value, such as --json, is no setting
            found[option_key(param)] = param
    return found


def option_key(option: click.Option) -> str:
    """Return an option's name in a file: its long name with underscores."""
    long = max(option.opts, key=len)
    return long.lstrip("-").replace("-", "_")


def shared_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings for all commands."""
    return {key: value for key, value in settings.items() if not isinstance(value, dict)}


def command_defaults(
    command: click.Command, own: object, inherited: Mapping[str, Any], file: Path, place: str
) -> dict[str, Any]:
    """Return click's `default_map` of one command, and of those below it.

    Args:
        command: The command.
        own: Its table in the file.
        inherited: What the tables around it say.
        file: The file, for messages.
        place: The table's name.

    Raises:
        ConfigError: The table names no command and no option.
    """
    if not isinstance(own, dict):
        raise ConfigError("expected a table of the command's options", source=str(file), place=place)
    if isinstance(command, click.Group):
        return _group_defaults(command, own, inherited, file, place)
    options = options_of(command)
    for key in own:
        if key not in options:
            raise ConfigError(f"no such option{did_you_mean(key, options)}", source=str(file), place=f"{place}.{key}")
    chosen = {**{key: value for key, value in inherited.items() if key in options}, **own}
    return {str(options[key].name): value for key, value in chosen.items()}


def _group_defaults(
    group: click.Group, own: dict[str, Any], inherited: Mapping[str, Any], file: Path, place: str
) -> dict[str, Any]:
    context = click.Context(group)
    names = group.list_commands(context)
    for key, value in own.items():
        if isinstance(value, dict) and key not in names:
            raise ConfigError(f"no such command{did_you_mean(key, names)}", source=str(file), place=f"{place}.{key}")
    below = {**inherited, **shared_settings(own)}
    return {
        name: command_defaults(command, own.get(name, {}), below, file, f"{place}.{name}")
        for name in names
        if (command := group.get_command(context, name)) is not None
    }


def check_settings(group: click.Group, settings: Mapping[str, Any], file: Path) -> None:
    """Check all of a settings file.

    Raises:
        ConfigError: A key names no command and no option of any command.
    """
    context = click.Context(group)
    names = group.list_commands(context)
    known = {key for _, command in leaf_commands(group) for key in options_of(command)}
    for key, value in settings.items():
        command = group.get_command(context, key)
        if command is not None:
            command_defaults(command, value, {}, file, key)
        elif isinstance(value, dict):
            raise ConfigError(f"no such command{did_you_mean(key, names)}", source=str(file), place=key)
        elif key not in known:
            raise ConfigError(f"no command has this option{did_you_mean(key, known)}", source=str(file), place=key)


def leaf_commands(group: click.Group, place: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield all commands that are no groups, with their names as they are typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaf_commands(command, f"{place}{name} ")
        elif command is not None:
            yield f"{place}{name}", command
