"""Where `agola-core` begins: says what is missing when the commands' extra is."""

from __future__ import annotations

import sys


def main() -> None:
    """Run a command and exit."""
    try:
        from agola_cli.main import main as run  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.stderr.write("agola-core: the commands need the extra cli: pip install 'agola-core[cli]'\n")
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
