"""Options that several commands share."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import click


def default_data_dir(tree: Path) -> Path:
    """Return where the runs of a directory are kept, when nothing else is said.

    Args:
        tree: A directory, or a file in it; in a git checkout its top stands for all of it.
    """
    directory = tree if tree.is_dir() else tree.parent
    top = subprocess.run(
        ["git", "-C", str(directory), "rev-parse", "--show-toplevel"], capture_output=True, check=False, text=True
    )
    root = Path(top.stdout.strip()) if top.returncode == 0 and top.stdout.strip() else directory.resolve()
    base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
    return base / "agola-core" / f"{root.name or 'root'}-{digest}"


data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="AGOLA_DATA_DIR",
    help="Where runs, logs and the store are kept. By default a directory of your home for each checkout.",
)


storage_option = click.option(
    "--storage", envvar="AGOLA_STORAGE", help="A storage URL, in the place of the directory's."
)

coordinator_option = click.option(
    "--coordinator", envvar="AGOLA_COORDINATOR", help="A coordinator URL, in the place of the directory's."
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


def existing_data_dir(data_dir: Path | None) -> Path:
    """Return the data directory that a reading command uses.

    Raises:
        click.UsageError: There is none yet.
    """
    chosen = data_dir or default_data_dir(Path.cwd())
    if not chosen.is_dir():
        raise click.UsageError(f"no data directory {chosen}: nothing has run yet, or name another with --data-dir")
    return chosen
