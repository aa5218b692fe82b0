"""Evaluates jsonnet to JSON in a separate process with limited time and memory.

The `jsonnet` package (the extra `jsonnet`) is Google's own. A configuration may import files of its own directory
and of those below it, and nothing else.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from agola_core.errors import ConfigError
from agola_core.runconfig.findings import Finding, FindingKind, Report

_CPU_SECONDS = 5
_WALL_SECONDS = 60
_MEMORY = 1 << 30
_MAX_OUTPUT = 16 << 20
_MISSING = 3
_NO_LIMIT = "Agola 0.2 has no limit on what evaluating a file takes"
CONTEXT = ("ref_type", "ref", "branch", "tag", "pull_request_id", "commit_sha")
"""What Agola 0.6 and later give to a file that is a function."""

_PLACE = re.compile(r":(\d+):\d+")


def evaluate(path: Path, source: str, context: Mapping[str, str], report: Report) -> bytes:
    """Return the JSON that a jsonnet file evaluates to.

    Args:
        path: The file.
        source: The file, as the user named it.
        context: The argument `ctx` for a file that is a function; missing values are empty.
        report: Gets findings about what Agola 0.2 does not support.

    Raises:
        ConfigError: It has an error, exceeds a limit, or the extra is missing.
    """
    command = [sys.executable, "-c", "from agola_core.runconfig.jsonnet import main; main()", str(path.absolute())]
    command.append(json.dumps({**dict.fromkeys(CONTEXT, ""), **context}))
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_WALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        report(Finding(FindingKind.OWN_ERROR, _NO_LIMIT, source))
        raise ConfigError(f"the jsonnet takes longer than {_WALL_SECONDS} s", source=source) from error
    if done.returncode in {-signal.SIGXCPU, -signal.SIGKILL}:
        report(Finding(FindingKind.OWN_ERROR, _NO_LIMIT, source))
        raise ConfigError(f"the jsonnet takes longer than {_CPU_SECONDS} s", source=source)
    if done.returncode == _MISSING:
        report(Finding(FindingKind.OWN_ERROR, "Agola 0.2 has jsonnet built in", source))
        raise ConfigError("jsonnet needs the extra: pip install 'agola-core[jsonnet]'", source=source)
    if done.returncode < 0 or len(done.stdout) > _MAX_OUTPUT:
        report(Finding(FindingKind.OWN_ERROR, _NO_LIMIT, source))
        raise ConfigError("the jsonnet needs more memory than it may use", source=source)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        found = next((match for line in said if (match := _PLACE.search(line))), None)
        raise ConfigError(f"jsonnet: {said[0]}", source=source, line=int(found[1]) if found else None)
    for message in done.stderr.decode(errors="replace").splitlines():
        report(Finding(FindingKind.REFUSED, message, source))
    return done.stdout


def main() -> None:
    """Evaluate the file in the first argument: the entry point of the separate process."""
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    try:
        import _jsonnet  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        sys.exit(_MISSING)
    path = Path(sys.argv[1])
    root = path.parent.resolve()
    notes: list[str] = []

    def imported(base: str, name: str) -> tuple[str, bytes]:
        notes.append(f"Agola 0.2 refuses to import {name!r}: it sees this file alone")
        target = (root / base / name).resolve()
        if not target.is_relative_to(root):
            raise RuntimeError(f"{name!r} is not in the directory of the configuration")
        return str(target), target.read_bytes()

    def evaluated(**arguments: str) -> str:
        found: str = _jsonnet.evaluate_snippet(
            path.name, path.read_text(), import_callback=imported, tla_codes=arguments
        )
        return found

    try:
        try:
            text = evaluated()
        except RuntimeError as error:
            if "function parameter ctx not bound" not in str(error):
                raise
            text = evaluated(ctx=sys.argv[2])
            notes.append("Agola before 0.6 refuses a function that needs ctx")
    except (RuntimeError, OSError, ValueError, RecursionError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    sys.stderr.write("\n".join(dict.fromkeys(notes)))
    sys.stdout.write(text)
