"""Runs the blocks of a page of the documentation, as a reader would from top to bottom.

The words after the fence say what a block is:

- `python`: runs in this process, after the blocks before it; with `def test_` in it, pytest runs it.
- `yaml` that begins with `runs:`: becomes `.agola/config.yml`.
- `sh`: runs in bash, where the block before it ended.
- `sh service`: goes on until the page's end; what follows begins when it says that it serves.
- `python no-test WHY`, `sh no-test WHY`: does not run, and says why.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SERVICE = "http://127.0.0.1:4000"
NO_OTHERS = [f"-pno:{name}" for name in ("anyio", "benchmark", "hypothesispytest", "schemathesis", "timeout")]
"""Leave out other plugins of this project's environment, whose imports would take most of the time."""
_READY = re.compile(r"(?:serving on|listens on) (\S+)")


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    mark: str
    why: str
    text: str


def page_blocks(page):
    """Return the fenced blocks of a page, in their order."""
    fence = re.compile(r"^```([\w-]*)(?: (\S+))?(?: ([^\n]*))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    directive = re.compile(r"^```\{.*?^```$", re.DOTALL | re.MULTILINE)
    return [Block(*item) for item in fence.findall(directive.sub("", page.read_text()))]


class Reader:
    """Somebody who does what a page says, in a directory of their own.

    Args:
        directory: Where they are, and their home.
        replaced: What stands for what in the page's texts.
    """

    def __init__(self, directory, replaced=None):
        self._page = ModuleType("page")  # what a program defines may be imported by its name, as a pickle does
        self._home = directory
        self._place = directory
        self._replaced = dict(replaced or {})
        self._services = contextlib.ExitStack()
        self._environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(directory),
            "AGOLA_PORT": "0",
            "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
            "PYTEST_ADDOPTS": " ".join(NO_OTHERS),
        }

    def __enter__(self):
        sys.modules["page"] = self._page
        return self

    def __exit__(self, *error):
        del sys.modules["page"]
        self._services.close()

    def read(self, page, languages=("python", "yaml", "sh")):
        """Run the blocks of a page, and return what its commands and tests printed."""
        printed = []
        for number, block in enumerate(page_blocks(page)):
            if block.language not in languages or block.mark == "no-test":
                continue
            text = block.text
            for there, here in self._replaced.items():
                text = text.replace(there, here)
            if block.language == "python":
                printed.append(self._python(text, f"{page.stem}_{number}"))
            elif block.language == "yaml" and text.startswith("runs:"):
                (self._place / ".agola").mkdir(exist_ok=True)
                (self._place / ".agola/config.yml").write_text(text)
            elif block.language == "sh" and block.mark == "service":
                self._serve(text)
            elif block.language == "sh":
                printed.append(self._shell(text))
        return "".join(printed)

    def _python(self, text, name):
        if not re.search(r"^def test_", text, re.MULTILINE):
            with contextlib.chdir(self._place):
                exec(compile(text, name, "exec"), vars(self._page))
            return ""
        file = self._place / f"test_{name.replace('-', '_')}.py"
        file.write_text(text)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file.name]
        return self._done(command, environment={**os.environ, "PYTEST_ADDOPTS": " ".join(NO_OTHERS)})

    def _shell(self, text):
        place = self._home / ".place"
        printed = self._done(["bash", "-ec", f"{text}\npwd > '{place}'"], environment=self._environment)
        self._place = Path(place.read_text().strip())
        return printed

    def _done(self, command, environment):
        done = subprocess.run(
            command,
            cwd=self._place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def _serve(self, text):
        service = subprocess.Popen(
            ["bash", "-ec", f"exec {text}"],
            cwd=self._place,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._services.callback(_end, service)
        said = []
        for line in service.stdout:
            said.append(line)
            if found := _READY.search(line):
                self._replaced[SERVICE] = found[1]
                return
        raise AssertionError("".join(said))


def _end(service):
    service.send_signal(signal.SIGTERM)
    with service.stdout:
        service.stdout.read()
    service.wait()


def run_page(page, directory, **replaced):
    """Run the commands of a page's `sh` blocks.

    Args:
        page: The page.
        directory: In the place of /var/lib/agola.
        replaced: What else stands for what in the blocks.
    """
    text = "\n".join(
        block.text for block in page_blocks(DOCS / page) if (block.language, block.mark) == ("sh", "")
    ).replace("/var/lib/agola", str(directory))
    for there, here in replaced.items():
        assert there in text
        text = text.replace(there, here)
    return subprocess.run(
        ["bash", "-ec", text],
        cwd=directory.parent,
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "AGOLA_DATA_DIR": str(directory.parent / "data"),
            "HOME": str(directory.parent),
        },
    )
