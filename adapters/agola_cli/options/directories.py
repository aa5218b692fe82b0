"""Data directories: the option that names one, and the default for a checkout."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import click

from agola_core.address import no_directory
from agola_core.source.git_command import run_git


class DirectoryType(click.Path):
    """A directory, which is created if missing; for a URL, the error names the right option."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        reason = no_directory(value)
        if reason is not None:
            self.fail(f"{os.fspath(value)!r} {reason}", param, ctx)
        return super().convert(value, param, ctx)


data_dir_option = click.option(
    "--data-dir",
    type=DirectoryType(),
    envvar="AGOLA_DATA_DIR",
    show_envvar=True,
    help="The directory of runs, logs and the store, such as /var/lib/agola. By default one in your home for each "
    "checkout.",
)


def default_data_dir(tree: Path) -> Path:
    """Return where the runs of a directory are kept, when nothing else is said.

    Args:
        tree: A directory, or a file in it; every directory of a git checkout has the same one.
    """
    directory = tree if tree.is_dir() else tree.parent
    try:
        top = os.fsdecode(run_git(directory, "rev-parse", "--show-toplevel").stdout).strip()
    except FileNotFoundError:  # a machine without git
        top = ""
    root = Path(top) if top else directory.resolve()
    base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
    return base / "agola-core" / f"{root.name or 'root'}-{digest}"


def existing_data_dir(data_dir: Path | None) -> Path:
    """Return the data directory that a reading command uses.

    Raises:
        click.UsageError: It does not exist.
    """
    chosen = data_dir or default_data_dir(Path.cwd())
    if not chosen.is_dir():
        raise click.UsageError(f"no data directory {chosen}: nothing has run yet, or name another with --data-dir")
    return chosen
