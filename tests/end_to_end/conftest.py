"""A directory with a run configuration, and the command that runs it, as a person has them."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest


class Tree:
    """A directory whose `.agola/config.yml` is run by the real command."""

    def __init__(self, path, data_dir):
        self.path = path
        self.data_dir = data_dir
        (path / ".agola").mkdir(parents=True, exist_ok=True)

    def configure(self, text):
        (self.path / ".agola/config.yml").write_text(textwrap.dedent(text))

    def command(self, *arguments):
        return [sys.executable, "-m", "agola_cli.main", *map(str, arguments)]

    def environment(self):
        """Return a command's environment; without the width of the terminal that the tests run in (xdist sets it)."""
        inherited = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        return {**inherited, "AGOLA_DATA_DIR": str(self.data_dir)}

    def run(self, *arguments, timeout=60, env=None):
        return subprocess.run(
            self.command(*arguments),
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**self.environment(), **(env or {})},
        )

    def start(self, *arguments):
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment(),
        )

    def runs(self):
        return json.loads(self.run("runs", "list", "--json").stdout)


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "project", tmp_path / "data")


@pytest.fixture
def wait_for_line():
    def wait(process, wanted):
        seen = []
        for line in process.stdout:
            seen.append(line)
            if wanted in line:
                return seen
        raise AssertionError(f"{wanted!r} never came: {seen}")

    return wait


@pytest.fixture
def kill_now():
    def kill(process):
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()

    return kill
