"""`agola-core directrun`: runs a git checkout with its uncommitted changes, on a service or on this machine."""

from __future__ import annotations

import os
import re
import shlex
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import click

from agola_cli.connect.caller import login_name
from agola_cli.connect.remote import connected
from agola_cli.connect.target import Connection
from agola_cli.options.common import json_option, processors, token_file_option, url_option
from agola_cli.options.directories import data_dir_option, default_data_dir
from agola_cli.options.variables import GivenValues, given_options
from agola_cli.runs.actions import follow_or_leave
from agola_cli.runs.follow import ENDING_SECONDS
from agola_cli.runs.launch.checkout import Checkout, checkout_as
from agola_cli.runs.launch.submission import Wanted, prepare, wanted_options
from agola_core.errors import BadRequestError, ConfigError
from agola_core.executor import ExecutorOptions
from agola_core.source.git_command import run_git
from agola_core.source.tree import pack_tree

_UUID_KEY = "agola.repouuid"
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")


@click.group("directrun")
def directrun_command() -> None:
    """Run a git checkout as it lies there, committed or not."""


@directrun_command.command("start")
@wanted_options
@click.option("--untracked/--no-untracked", default=True, show_default=True, help="Send files that git does not track.")
@click.option("--ignored/--no-ignored", default=False, show_default=True, help="Send files that git ignores.")
@given_options
@click.option(
    "--user-id",
    envvar="AGOLA_USER_ID",
    show_envvar=True,
    help="The user whose run it is, such as ann; by default your login name here.",
)
@click.option("--detach", is_flag=True, help="Start the run, print its id, and do not wait for it.")
@url_option
@token_file_option
@data_dir_option
@json_option
def start_command(
    wanted: Wanted,
    untracked: bool,
    ignored: bool,
    given: GivenValues,
    user_id: str | None,
    detach: bool,
    url: str | None,
    token_file: Path | None,
    data_dir: Path | None,
    as_json: bool,
) -> int:
    """Run the checkout at PATH, on the service at --url, or in this process without one.

    The run belongs to you, and its caches to you and this checkout alone. Ends with 0 when the runs succeed, with 1
    when one fails. It runs as if on the branch `master`, unless --branch, --tag or --ref is given.

    \b
    agola-core directrun start
    agola-core directrun start --branch feature --env-file ci.env --var-file variables.yml
    agola-core directrun start --url http://ci.example:4000 --var DEPLOY=no --no-untracked
    """
    path, top = wanted.path, _top_of_checkout(wanted.path)
    user = _checked_user(user_id or login_name())
    chosen = wanted.checkout(top) or checkout_as(top, "master", None, None)
    assert chosen is not None
    submission = prepare(
        path if path.is_file() else top,
        run_name=wanted.run_name,
        checkout=chosen,
        variables=given.variables,
    )
    repository = repository_uuid(top)
    if url is None and detach:
        raise BadRequestError("--detach needs --url: without a service the run ends with this command")
    own = data_dir or default_data_dir(top)
    with _open(url, token_file, own) as connection:
        service = connection.service
        tree = pack_tree(
            top,
            include_untracked=untracked,
            include_ignored=ignored,
            left_out=own,
            include_repository=True,
        )
        source = service.put_source(tree)
        bundles = [
            service.create_run(
                submission.request(
                    run,
                    source=source,
                    group=run_group(user, chosen, repository),
                    cache_group=f"{user}-{repository}",
                    given=given,
                    user=user,
                )
            )
            for run in submission.runs
        ]
        return follow_or_leave(connection, bundles, detach=detach, as_json=as_json)


def run_group(user: str, checkout: Checkout, repository: str) -> str:
    """Return the group of a user's direct runs, by Agola's form and below it the repository.

    Runs of one group wait for each other: those of two repositories are not of one group.
    """
    if checkout.tag:
        kind, name = "tag", checkout.tag
    elif checkout.branch:
        kind, name = "branch", checkout.branch
    else:
        kind, name = "ref", checkout.ref
    return f"/user/{user}/{kind}/{quote(name, safe='')}/{repository}"


def repository_uuid(top: Path) -> str:
    """Return the id that a checkout's repository keeps in its git configuration, made at the first use.

    Raises:
        BadRequestError: git cannot write its configuration.
    """
    code, kept = _git(top, "config", "--local", "--get", _UUID_KEY)
    if not code and kept:
        return kept
    made = str(uuid.uuid4())
    code, reason = _git(top, "config", "--local", _UUID_KEY, made)
    if code:
        raise BadRequestError(f"git cannot keep {_UUID_KEY} in the configuration of {top}: {reason}")
    return _git(top, "config", "--local", "--get", _UUID_KEY)[1]


@contextmanager
def _open(url: str | None, token_file: Path | None, data_dir: Path) -> Iterator[Connection]:
    if url:
        with connected(url, token_file) as client:
            yield Connection(client, live=True, option=f" --url {shlex.quote(url)}")
        return
    from agola_core.standalone import Standalone  # noqa: PLC0415 - a client needs no service

    with Standalone(data_dir, executor=ExecutorOptions(active_tasks_limit=processors())) as standalone:
        option = f" --data-dir {shlex.quote(str(data_dir))}"
        yield Connection(standalone.service, live=True, option=option, kill=standalone.kill)
        standalone.service.wait_archived(
            [run.id for run in standalone.service.active_runs() if run.phase.is_finished], ENDING_SECONDS
        )


def _top_of_checkout(path: Path) -> Path:
    if not path.exists():
        raise ConfigError("no such file or directory", source=str(path))
    directory = path if path.is_dir() else path.parent
    code, top = _git(directory, "rev-parse", "--show-toplevel")
    if code:
        raise BadRequestError(f"{str(path)!r} is not in a git checkout; `agola-core run` runs any directory")
    return Path(top)


def _checked_user(user: str) -> str:
    if not user:
        raise BadRequestError("the user of this process has no name: give --user-id")
    if _USER.fullmatch(user) is None:
        raise BadRequestError(f"not a user id: {user!r}; up to 100 letters, digits, '.', '_', '@' and '-'")
    return user


def _git(directory: Path, *arguments: str) -> tuple[int, str]:
    """Return git's exit code, and what it answered or why it did not."""
    try:
        done = run_git(directory, *arguments)
    except FileNotFoundError as error:
        raise BadRequestError("direct runs need git") from error
    return done.returncode, os.fsdecode(done.stderr if done.returncode else done.stdout).strip()
