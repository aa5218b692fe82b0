"""A real terminal (pty) with a command in it, as a person sits before it."""

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PATIENCE = 60.0


class Terminal:
    """A command whose standard streams are a terminal.

    Attributes:
        output: Everything that it wrote so far, control sequences and all.
        process: The command.
    """

    def __init__(self, command, cwd, env=None, columns=100, lines=24):
        self.output = b""
        self._controller, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm", **(env or {})}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            if env is None or name not in env:
                environment.pop(name, None)
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - Ctrl-C reaches it
        )
        os.close(terminal)

    @property
    def text(self):
        """What it wrote, without control sequences."""
        return _CONTROL.sub("", self.output.decode(errors="replace")).replace("\r\n", "\n").replace("\r", "\n")

    def wait_for(self, wanted):
        """Read until a text was written."""
        while wanted not in self.text:
            assert self._read(), f"{wanted!r} never came: {self.text}"

    def type(self, data):
        """Type something."""
        os.write(self._controller, data)

    def wait(self):
        """Read to the end; return the exit code."""
        while self._read():
            pass
        os.close(self._controller)
        return self.process.wait(_PATIENCE)

    def _read(self):
        deadline = time.monotonic() + _PATIENCE
        ready, _, _ = select.select([self._controller], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing came any more: {self.text}"
        try:
            piece = os.read(self._controller, 1 << 16)
        except OSError:  # the command has gone
            return False
        self.output += piece
        return bool(piece)
