"""The entry point of `agola-core`: names the missing extra when the commands' libraries are not installed."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys


def main() -> None:
    """Run a command and exit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the imports last there is nothing to clean up
    _fill_streams()
    gc.disable()  # nor is there any garbage; `main` turns it on again
    ending = _Ending()
    atexit.register(ending.leave)
    try:
        from agola_cli.main import main as run  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.stderr.write("agola-core: the commands need the extra cli: pip install 'agola-core[cli]'\n")
        ending.code = 2
        sys.exit(2)
    try:
        run()
    except SystemExit as error:
        ending.code = error.code if isinstance(error.code, int) else 0
        raise


def _fill_streams() -> None:
    """Open the null device for each standard stream that was closed, as by `>&-`: no file must take its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


class _Ending:
    """Ends the process without freeing all modules and objects, which takes as long as a short command.

    It is registered before every other function, so that it is called when all of those have done their work.
    """

    def __init__(self) -> None:
        self.code = 1

    def leave(self) -> None:
        """End the process."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(self.code)


if __name__ == "__main__":
    main()
