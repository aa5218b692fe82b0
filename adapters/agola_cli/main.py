"""`agola-core`: the commands, and how errors reach people.

Exit codes: 0 success; 1 the run failed; 2 usage or configuration; 3 something cannot be reached; 4 refused;
70 a defect of agola-core itself; 130 interrupted.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

import click

from agola_core.__about__ import __version__
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
    "checkpoint": "store",
    "config": "config",
    "executor": "executor",
    "export": "store",
    "gc": "store",
    "import": "store",
    "maintenance": "maintenance",
    "run": "run",
    "runs": "runs",
    "serve": "serve",
    "status": "store",
    "verify": "store",
}


class LazyGroup(click.Group):
    """Imports a command's module when the command is used, so that every command starts fast."""

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


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="agola-core")
@click.option("-v", "--verbose", count=True, help="Log to standard error; twice for more.")
def cli(verbose: int) -> None:
    """Run CI pipelines on this machine, serve them, and look after their store.

    \b
    agola-core run .                  run this directory's .agola/config.yml
    agola-core runs list              what has run here
    agola-core serve                  the same behind HTTP
    """
    level = (logging.ERROR, logging.INFO, logging.DEBUG)[min(verbose, 2)]
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
    try:
        code: Any = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except AgolaError as error:
        click.echo(f"agola-core: {error}", err=True)
        code = exit_code(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to be flushed into it
        code = 141
    except Exception as error:
        logger.debug("unexpected error", exc_info=True)
        click.echo(f"agola-core: internal error: {error!r}; run it with -vv and report what it says", err=True)
        code = 70
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
