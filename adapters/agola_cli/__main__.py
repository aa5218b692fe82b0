"""The entry point of `agola-core`: names the missing extra when the commands' libraries are not installed."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run a command and exit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the imports last there is nothing to clean up
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
