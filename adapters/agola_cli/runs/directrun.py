"""`agola-core directrun`: run a git checkout as it lies there, on a running service or on this machine."""

from __future__ import annotations

import getpass
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import click
import yaml

from agola_cli.connect.remote import connected
from agola_cli.connect.target import Connection
from agola_cli.options.common import (
    data_dir_option,
    default_data_dir,
    given_variable,
    json_option,
    name_and_value,
    secret_options,
    token_file_option,
    url_option,
)
from agola_cli.runs.actions import follow_or_leave
from agola_cli.runs.checkout import Checkout, checkout_as
from agola_cli.runs.submission import prepare
from agola_core.errors import BadRequestError, ConfigError
from agola_core.source import pack_tree

_UUID_KEY = "agola.repouuid"
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
_ENDING_SECONDS = 15.0


@click.group("directrun")
def directrun_command() -> None:
    """Run a git checkout as it lies there, committed or not."""


@directrun_command.command("start")
@click.argument("path", type=click.Path(path_type=Path), default=".")
@click.option("--run", "run_name", metavar="NAME", help="Only this run of the configuration.")
@click.option("--untracked/--no-untracked", default=True, show_default=True, help="Send files that git does not track.")
@click.option("--ignored/--no-ignored", default=False, show_default=True, help="Send files that git ignores.")
@click.option("--branch", help="Run as if on this branch; `master` when neither tag nor ref is given.")
@click.option("--tag", help="Run as if on this tag.")
@click.option("--ref", help="Run as if on this git reference.")
@click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="A value for from_variable; a secret.")
@click.option(
    "--var-file",
    "variable_files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A YAML map of values for from_variable; --var goes over it.",
)
@click.option("--env", "environment", multiple=True, metavar="NAME[=VALUE]", help="Give a variable to every task.")
@click.option(
    "--user-id", envvar="AGOLA_USER_ID", show_envvar=True, help="Whose run it is; by default who you are here."
)
@click.option("--detach", is_flag=True, help="Only start it, and print its id.")
@secret_options
@url_option
@token_file_option
@data_dir_option
@json_option
def start_command(
    path: Path,
    run_name: str | None,
    untracked: bool,
    ignored: bool,
    branch: str | None,
    tag: str | None,
    ref: str | None,
    variables: tuple[str, ...],
    variable_files: tuple[Path, ...],
    environment: tuple[str, ...],
    user_id: str | None,
    detach: bool,
    url: str | None,
    token_file: Path | None,
    data_dir: Path | None,
    as_json: bool,
    secrets: dict[str, str],
) -> int:
    """Run the checkout at PATH, on the service at --url, or in this process without one.

    The run belongs to you, and its caches to you and this checkout alone. Ends with 0 when the runs succeed, with 1
    when one fails.

    \b
    agola-core directrun start
    agola-core directrun start --url http://ci.example:4000 --var DEPLOY=no --no-untracked
    """
    top = _top_of_checkout(path)
    user = _checked_user(user_id or getpass.getuser())
    chosen = checkout_as(top, branch, tag, ref) or checkout_as(top, "master", None, None)
    assert chosen is not None
    submission = prepare(
        path if path.is_file() else top,
        run_name=run_name or "",
        checkout=chosen,
        variables=_variables(variable_files, variables),
    )
    given = dict(given_variable(item) for item in environment)
    cache_group = f"{user}-{repository_uuid(top)}"
    if url is None and detach:
        raise BadRequestError("--detach needs --url: without a service the run ends with this command")
    own = data_dir or default_data_dir(top)
    with _open(url, token_file, own) as connection:
        service = connection.service
        source = service.put_source(pack_tree(top, include_untracked=untracked, include_ignored=ignored, left_out=own))
        bundles = [
            service.create_run(
                submission.request(
                    run,
                    source=source,
                    group=run_group(user, chosen),
                    cache_group=cache_group,
                    environment=given,
                    secrets=secrets,
                )
            )
            for run in submission.runs
        ]
        return follow_or_leave(connection, bundles, detach=detach, as_json=as_json)


def run_group(user: str, checkout: Checkout) -> str:
    """Return the group of a user's direct runs, by Agola's form."""
    if checkout.tag:
        kind, name = "tag", checkout.tag
    elif checkout.branch:
        kind, name = "branch", checkout.branch
    else:
        kind, name = "ref", checkout.ref
    return f"/user/{user}/{kind}/{quote(name, safe='')}"


def repository_uuid(top: Path) -> str:
    """Return the id that a checkout's repository keeps in its git configuration, made at the first use.

    Raises:
        BadRequestError: git cannot write its configuration.
    """
    done = _git(top, "config", "--local", "--get", _UUID_KEY)
    if done.returncode == 0 and done.stdout.strip():
        return done.stdout.strip()
    made = str(uuid.uuid4())
    done = _git(top, "config", "--local", _UUID_KEY, made)
    if done.returncode:
        raise BadRequestError(f"git cannot keep {_UUID_KEY} in the configuration of {top}: {done.stderr.strip()}")
    return _git(top, "config", "--local", "--get", _UUID_KEY).stdout.strip()


@contextmanager
def _open(url: str | None, token_file: Path | None, data_dir: Path) -> Iterator[Connection]:
    if url:
        with connected(url, token_file) as client:
            yield Connection(client, live=True, option=f" --url {url}")
        return
    from agola_core.standalone import Standalone  # noqa: PLC0415 - a client needs no service

    with Standalone(data_dir) as standalone:
        yield Connection(standalone.service, live=True, option=f" --data-dir {data_dir}")
        standalone.service.wait_archived(
            [run.id for run in standalone.service.active_runs() if run.phase.is_finished], _ENDING_SECONDS
        )


def _top_of_checkout(path: Path) -> Path:
    if not path.exists():
        raise ConfigError("no such file or directory", source=str(path))
    directory = path if path.is_dir() else path.parent
    done = _git(directory, "rev-parse", "--show-toplevel")
    if done.returncode:
        raise BadRequestError(f"{str(path)!r} is not in a git checkout; `agola-core run` runs any directory")
    return Path(done.stdout.rstrip("\n"))


def _checked_user(user: str) -> str:
    if _USER.fullmatch(user) is None:
        raise BadRequestError(f"not a user id: {user!r}; up to 100 letters, digits, '.', '_', '@' and '-'")
    return user


def _variables(files: tuple[Path, ...], given: tuple[str, ...]) -> dict[str, str]:
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


def _git(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        return subprocess.run(
            ["git", "-C", str(directory), *arguments], capture_output=True, check=False, text=True, env=environment
        )
    except FileNotFoundError as error:
        raise BadRequestError("direct runs need git") from error
