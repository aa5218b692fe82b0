"""`agola-core`: the table of commands, and the exit code and message of every error.

Exit codes: 0 success; 1 a run or a check failed, or the answer to a question was no; 2 usage or configuration;
3 something cannot be reached; 4 refused; 70 a defect of agola-core itself; 74 the output cannot be written;
130 interrupted; 141 whoever read the output is gone.
"""

from __future__ import annotations

import errno
import gc
import importlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from agola_cli.config.settings import (
    VARIABLE,
    check_settings,
    command_defaults,
    find_settings_file,
    read_settings,
    shared_settings,
)
from agola_core.__about__ import __version__
from agola_core.encoding.suggestions import did_you_mean
from agola_core.errors import (
    AgolaError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    MaintenanceError,
    NotFoundError,
    UnavailableError,
)

logger = logging.getLogger(__name__)

_COMMANDS = {
    "checkpoint": "store.commands",
    "checkpoints": "store.commands",
    "compact": "store.commands",
    "completion": "config.completion",
    "config": "config.show",
    "directrun": "runs.launch.directrun",
    "executor": "server.executor",
    "export": "store.export",
    "gc": "store.commands",
    "get": "store.objects",
    "history": "store.objects",
    "import": "store.import_",
    "ls": "store.objects",
    "maintenance": "store.maintenance",
    "put": "store.objects",
    "recover": "store.commands",
    "run": "runs.launch.run",
    "runs": "runs.listing",
    "serve": "server.serve",
    "status": "store.commands",
    "verify": "store.commands",
    "watch": "store.objects",
}

_SERVERS = {"executor", "serve"}
"""Commands that nobody watches closely: they log warnings, too."""

_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}

_USUAL_SETTINGS = {"coordinator", "data_dir", "output_format", "storage", "token_file", "url"}


class OutputClosedError(Exception):
    """The reader of standard output is gone."""


class LazyGroup(click.Group):
    """Imports a command's module when the command is used, so that every command starts fast.

    Attributes:
        used: The command that was typed; None before it is known.
    """

    used: click.Command | None = None

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Return the names of the commands."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Return a command."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"agola_cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click itself would end with 1 when the output is closed."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise OutputClosedError from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that was typed, its defaults taken from the settings file."""
        if args[0] not in _COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}{did_you_mean(args[0], _COMMANDS)}")  # click looks for none
        name, command, rest = super().resolve_command(ctx, args)
        self.used = command
        if name is not None and command is not None:
            ctx.obj = SettingsFile(ctx.params.get("config_file"))
            ctx.default_map = {name: ctx.obj.defaults(self, name, command)}
        gc.freeze()  # the modules stay
        gc.enable()
        return name, command, rest


class SettingsFile:
    """The settings file of this call, when there is one.

    Args:
        named: The one that the person names; None to look for one.
    """

    def __init__(self, named: Path | None) -> None:
        self._file = named or find_settings_file(Path.cwd())
        self._settings = read_settings(self._file) if self._file else {}

    def defaults(self, group: click.Group, name: str, command: click.Command) -> dict[str, Any]:
        """Return the defaults of one command.

        Raises:
            ConfigError: The file names something that does not exist.
        """
        if self._file is None:
            return {}
        shared = shared_settings(self._settings)
        if not _USUAL_SETTINGS.issuperset(shared):
            check_settings(group, self._settings, self._file)  # imports every command: only for unusual keys
        return command_defaults(command, self._settings.get(name, {}), shared, self._file, name)

    def all_defaults(self, group: click.Group) -> dict[str, Any]:
        """Return the defaults of all commands.

        Raises:
            ConfigError: The file names something that does not exist.
        """
        if self._file is None:
            return {}
        check_settings(group, self._settings, self._file)
        context = click.Context(group)
        return {
            name: self.defaults(group, name, command)
            for name in group.list_commands(context)
            if (command := group.get_command(context, name)) is not None
        }


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "auto_envvar_prefix": "AGOLA",
    },
)
@click.version_option(__version__, prog_name="agola-core")
@click.option("-v", "--verbose", count=True, help="Log to standard error; twice for more.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=VARIABLE,
    show_envvar=True,
    help="Defaults for the options below; by default agola-core.toml here, above, or in ~/.config/agola-core.",
)
@click.pass_context
def cli(context: click.Context, verbose: int, config_file: Path | None) -> None:  # noqa: ARG001 - `SettingsFile` reads it
    """Run CI pipelines on this machine, serve them, and look after their store.

    \b
    agola-core run .                  run this directory's .agola/config.yml
    agola-core runs list              what has run here
    agola-core serve                  the same behind HTTP
    agola-core directrun start --url http://127.0.0.1:4000
    agola-core export -o backup.zst   one consistent snapshot

    Exit codes: 0 success, 1 a run or a check failed or you answered no, 2 usage or configuration,
    3 something cannot be reached, 4 refused, 70 a defect of agola-core itself, 74 the output cannot be written,
    130 interrupted, 141 the output was closed.
    """
    quiet = logging.WARNING if context.invoked_subcommand in _SERVERS else logging.ERROR
    level = (quiet, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")


def exit_code(error: AgolaError) -> int:
    """Return the exit code that an error ends a command with."""
    if isinstance(error, ConflictError | ForbiddenError | MaintenanceError):
        return 4
    if isinstance(error, BadRequestError | NotFoundError):
        return 2
    if isinstance(error, UnavailableError):
        return 3
    return 4


def main() -> None:
    """Run a command and exit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # `__main__` left none for the imports
    try:
        code: Any = cli.main(prog_name="agola-core", standalone_mode=False)
        sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt):
        code = 130
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        if hint := _hint(error):
            _tell(hint)
        code = error.exit_code
    except AgolaError as error:
        _tell(f"agola-core: {error}")
        code = exit_code(error)
    except (BrokenPipeError, OutputClosedError):
        code = _leave_output(141)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            code = _report_defect(error)
        else:
            code = _leave_output(74)
            _tell(f"agola-core: the output cannot be written: {error.strerror}")
    except Exception as error:
        logger.debug("unexpected error", exc_info=True)
        code = _report_defect(error)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # from here on nothing is left to be cleaned up
    sys.exit(code if isinstance(code, int) else 0)


def _tell(message: str) -> None:
    """Write a message to standard error; where that is impossible, the exit code alone tells."""
    with suppress(OSError):
        click.echo(message, err=True)


def _hint(error: click.ClickException) -> str:
    """Return what click's message leaves out: the choices of an option without a value, and what a number is."""
    if "is not a valid integer range" in error.message:
        return "It has to be a whole number."
    if isinstance(error, click.BadOptionUsage) and isinstance(cli, LazyGroup) and cli.used is not None:
        for option in _parameters(cli.used):
            if error.option_name in option.opts and isinstance(option.type, click.Choice):
                return f"One of: {', '.join(map(str, option.type.choices))}."
    return ""


def _parameters(command: click.Command) -> Iterator[click.Parameter]:
    """Yield the parameters of a command and of those below it."""
    yield from command.params
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from _parameters(below)


def _leave_output(code: int) -> int:
    """Return an exit code; what is left in standard output's buffer cannot be written, and is dropped."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code


def _report_defect(error: BaseException) -> int:
    """Return the exit code of an unexpected error; one that Ctrl-C caused does not count as such."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            return 130
        cause = cause.__context__
    _tell(f"agola-core: internal error: {error!r}; run it with -vv and report what it says")
    return 70


if __name__ == "__main__":
    main()
