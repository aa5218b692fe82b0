"""R8, guided by coverage: atheris looks for inputs of the parsers of `fuzz` that take new ways through them.

Each parser is fuzzed in a process of its own, whose memory is bounded. What it found interesting is kept in
`bench/results/corpus/`, out of version control, and gone on with. Needs the dependency group `fuzz`, whose atheris has
no wheel for every Python.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.soak.trial import Campaign, Skipped, Violation

SECONDS = 5
MEMORY_MIB = 256
MAX_INPUT = 4096
_ROOT = Path(__file__).parents[3]
CORPUS = _ROOT / "bench" / "results" / "corpus"
_GRACE = 60
_DONE = re.compile(r"^Done (\d+) runs? in \d+ second", re.MULTILINE)
_COVERED = re.compile(r"cov: (\d+)")


def trial(seed: int) -> Counter[str]:
    """Fuzz one parser, the next with the next seed, for some seconds.

    Raises:
        Skipped: There is no atheris for this Python.
        Violation: Another error than this package's came out, an input took too long or too much memory.
    """
    if importlib.util.find_spec("atheris") is None:
        raise Skipped("atheris is not installed: pip install --group fuzz (it has no wheel for some Pythons)")
    from tests.soak.parsers.fuzz import targets

    found = targets()
    target = found[seed % len(found)]
    corpus = CORPUS / re.sub(r"\W+", "-", target.name)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, whole in enumerate(target.whole):
        (corpus / f"whole-{number}").write_bytes(whole)
    with tempfile.TemporaryDirectory(prefix="agola-soak-") as directory:
        command = [
            *(sys.executable, "-m", "tests.soak.parsers.coverage", str(seed % len(found)), str(corpus)),
            *(f"-seed={seed % (1 << 31) + 1}", f"-max_total_time={SECONDS}", f"-max_len={MAX_INPUT}"),
            *(f"-rss_limit_mb={MEMORY_MIB}", "-timeout=5", f"-artifact_prefix={directory}/", "-print_final_stats=1"),
        ]
        done = subprocess.run(
            command, cwd=_ROOT, capture_output=True, text=True, errors="replace", timeout=SECONDS + _GRACE, check=False
        )
        artifacts = [path.read_bytes()[:400] for path in Path(directory).iterdir()]
    runs = _DONE.search(done.stderr)
    if done.returncode or runs is None:
        raise Violation(f"seed {seed}: {target.name}: {artifacts}: {(done.stdout + done.stderr)[-3000:]}")
    executions = int(runs[1])
    covered = max(map(int, _COVERED.findall(done.stderr)), default=0)
    if not covered:
        raise Violation(f"seed {seed}: {target.name}: nothing was instrumented: {done.stderr[-1000:]}")
    return Counter({f"{target.name}: executions": executions, "executions": executions})


def main() -> None:
    """Fuzz the parser that the first argument numbers; what follows is for atheris."""
    import atheris

    with atheris.instrument_imports(include=["agola_core", "agola_http"]):
        from agola_core.errors import AgolaError
        from tests.soak.parsers.fuzz import targets

        target = targets()[int(sys.argv[1])]

    def parse(data: bytes) -> None:
        with contextlib.suppress(AgolaError):
            target.parse(target.encode_checksummed(data))

    atheris.Setup([sys.argv[0], *sys.argv[2:]], parse)
    atheris.Fuzz()


CAMPAIGN = Campaign("coverage", "inputs of every parser, guided by coverage", trial)

if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    main()
