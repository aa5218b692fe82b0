"""Options that give variables and secrets to the tasks of a run."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec
import yaml

from agola_cli.options.common import FILE, bundled
from agola_core.errors import BadRequestError, ConfigError


def name_and_value(text: str) -> tuple[str, str]:
    """Return the parts of NAME=VALUE.

    Raises:
        BadRequestError: It is not that.
    """
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise BadRequestError(f"expected NAME=VALUE, not {text!r}")
    return name, value


def given_variable(text: str) -> tuple[str, str]:
    """Return the name and the value that NAME=VALUE says, or that NAME has in this environment.

    Raises:
        BadRequestError: The name is empty, or there is no such variable.
    """
    name, separator, value = text.partition("=")
    if not name:
        raise BadRequestError("expected NAME or NAME=VALUE: there is no name")  # the value may be a secret
    if not all(character.isprintable() and not character.isspace() for character in name):
        raise BadRequestError(f"{name!r} is no name of a variable: it has a space or a control character")
    if separator:
        return name, value
    if name not in os.environ:
        raise BadRequestError(f"{name}: there is no such variable here; write {name}=VALUE")
    return name, os.environ[name]


def _read_environment(files: tuple[Path, ...], given: tuple[str, ...]) -> dict[str, str]:
    values: dict[str, str] = {}
    for file in files:
        try:
            lines = file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BadRequestError(f"--env-file {file}: {error}") from error
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.lstrip().startswith("#"):
                try:
                    name, value = given_variable(line.strip())
                except BadRequestError as error:
                    raise BadRequestError(f"--env-file {file}:{number}: {error}") from error
                values[name] = value
    return values | dict(given_variable(item) for item in given)


class GivenValues(msgspec.Struct, frozen=True):
    """What the options give to the tasks of a run.

    Attributes:
        environment: Environment variables of every task.
        variables: Values for `from_variable`; they are secret.
        secrets: Environment variables whose values are shown nowhere.
    """

    environment: dict[str, str]
    variables: dict[str, str]
    secrets: dict[str, str]


def _given(
    environment: tuple[str, ...],
    environment_files: tuple[Path, ...],
    variables: tuple[str, ...],
    variable_files: tuple[Path, ...],
    secret: tuple[str, ...],
    secret_file: tuple[str, ...],
) -> GivenValues:
    return GivenValues(
        _read_environment(environment_files, environment),
        read_variables(variable_files, variables),
        _read_secrets(secret, secret_file),
    )


def read_variables(files: tuple[Path, ...], given: tuple[str, ...]) -> dict[str, str]:
    """Return the values for `from_variable` that files and options give.

    Args:
        files: YAML maps of names and values.
        given: NAME=VALUE texts, which override the files.

    Raises:
        BadRequestError: An option is not NAME=VALUE.
        ConfigError: A file cannot be read, or is not such a map.
    """
    values: dict[str, str] = {}
    for file in files:
        try:
            document = yaml.safe_load(file.read_bytes())
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", source=str(file)) from error
        except RecursionError as error:
            raise ConfigError("nested too deeply", source=str(file)) from error
        except (yaml.YAMLError, ValueError) as error:  # text that is not UTF-8, or a date that there is not
            raise ConfigError(f"not YAML: {error}", source=str(file)) from error
        if not isinstance(document, dict):
            raise ConfigError("expected a map of names and values", source=str(file))
        for name, value in document.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise ConfigError("names and values must be strings", source=str(file), place=str(name))
            values[name] = value
    for item in given:
        name, value = name_and_value(item)
        if not value:
            raise BadRequestError(f"--var {name}= has no value")
        values[name] = value
    return values


def _read_secrets(given: tuple[str, ...], files: tuple[str, ...]) -> dict[str, str]:
    values = {}
    for item in given:
        if item and "=" not in item and item not in os.environ:  # no advice to write it where everybody sees it
            raise BadRequestError(
                f"--secret {item}: there is no such variable here; set it, or name a file by --secret-file"
            )
        name, value = given_variable(item)
        values[name] = value
    for item in files:
        name, file = name_and_value(item)
        try:
            values[name] = Path(file).read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise BadRequestError(f"--secret-file {name}={file}: {error}") from error
    for name, value in values.items():
        if not value:
            raise BadRequestError(f"--secret {name}: it has no value")
    return values


environment_option = click.option(
    "--env",
    "environment",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Set an environment variable in every task; without a value, the one of this environment.",
)

given_options = bundled(
    "given",
    _given,
    environment_option,
    click.option(
        "--env-file",
        "environment_files",
        multiple=True,
        type=FILE,
        help="A file such as ci.env, with lines of NAME=VALUE or NAME, and comments (#); --env overrides it.",
    ),
    click.option(
        "--var", "variables", multiple=True, metavar="NAME=VALUE", help="A value for from_variable; it is kept secret."
    ),
    click.option(
        "--var-file",
        "variable_files",
        multiple=True,
        type=FILE,
        help="A file such as variables.yml, a YAML map of values for from_variable; --var overrides it.",
    ),
    click.option(
        "--secret",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Set an environment variable whose value is shown nowhere.",
    ),
    click.option(
        "--secret-file", multiple=True, metavar="NAME=FILE", help="The same, with the content of a file as the value."
    ),
)
