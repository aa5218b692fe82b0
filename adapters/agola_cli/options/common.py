"""Options that many commands share, and the decorator that turns several options into one value."""

from __future__ import annotations

import functools
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import click

from agola_cli.options.types import Whole
from agola_core.errors import BadRequestError

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(path_type=Path, dir_okay=False)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")

url_option = click.option(
    "--url",
    metavar="URL",
    envvar="AGOLA_URL",
    show_envvar=True,
    help="A running service instead of a data directory, such as http://127.0.0.1:4000.",
)

token_file_option = click.option(
    "--token-file",
    type=FILE,
    envvar="AGOLA_TOKEN_FILE",
    show_envvar=True,
    help="File with the token that the service asks for, such as ~/ci.token; AGOLA_TOKEN may hold the token itself.",
)


def processors() -> int:
    """Return how many processors this process may use: the default for tasks that run at once."""
    return len(os.sched_getaffinity(0))


tasks_option = click.option(
    "--tasks",
    type=Whole(0),
    default=processors,
    show_default="the processors",
    help="How many tasks run here at the same time; 0 for no limit.",
)

yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def bundled(name: str, build: Callable[..., Any], *options: Callable[[F], F]) -> Callable[[F], F]:
    """Return a decorator that adds options to a command, which takes them as one argument.

    Args:
        name: The command's argument.
        build: Makes its value from the options' values, which it gets by their names.
        options: Decorators made by `click.option`, in the order of `--help`.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(**arguments: Any) -> Any:
            value = build(**{key: arguments.pop(key) for key in keys})
            return function(**arguments, **{name: value})

        command = cast("F", call)
        parameters: list[click.Parameter] = []
        command.__click_params__, others = parameters, getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        for option in reversed(options):
            option(command)
        keys = [parameter.name for parameter in parameters]
        parameters[:0] = others
        return command

    return decorate


def read_token(token_file: Path | None) -> str:
    """Return the token of a service; "" for none.

    Raises:
        BadRequestError: The file cannot be read, or is empty.
    """
    if token_file is None:
        return os.environ.get("AGOLA_TOKEN", "")
    try:
        token = token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"the token file {str(token_file)!r} cannot be read: {error}") from error
    if not token:
        raise BadRequestError(f"the token file {str(token_file)!r} is empty")
    return token


class DeclinedError(click.ClickException):
    """The answer to a question was no."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the message as it is: it is no error."""
        click.echo(self.message, file=file, err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone. Whoever calls it has checked everything that can be checked before.

    Args:
        question: What is about to happen.
        yes: Whether the user has agreed already.

    Raises:
        click.UsageError: Standard input is not a terminal, so nobody can be asked.
        DeclinedError: The answer was anything but y or yes, or the end of the input.
        KeyboardInterrupt: Ctrl-C.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question}: say --yes")
    click.echo(f"{question}; go on? [y/N]: ", nl=False, err=True)
    _wait_for_line()
    answer = sys.stdin.readline()
    if not answer:
        click.echo(err=True)
    if answer.strip().lower() not in {"y", "yes"}:
        raise DeclinedError("nothing was changed")


def _wait_for_line() -> None:
    """Wait until a terminal has a line. A Ctrl-C just before the wait ends it, too; `input` would go on waiting."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    former = signal.set_wakeup_fd(tell)
    try:
        select.select([sys.stdin, told], [], [])
    finally:
        signal.set_wakeup_fd(former)
        os.close(told)
        os.close(tell)
