"""Check that a wheel with all extras resolves beside what its users have, with the pip that their Python comes with.

    python -m tests.support.resolve WHEEL

Each resolution takes at most 30 s; one that is slower is tried twice more, since it may have waited for downloads or
for a processor. What pip itself needs is told beside it.
"""

import resource
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

BESIDE = (["boto3"], ["moto[server]"], ["pandas", "pyarrow"], ["eventsourcing"])
SECONDS = 30
DOWNLOADS = 300


def resolve(pip, wheel, beside, seconds):
    """Return how long it took, and for how long pip computed; None when it took longer than it may."""
    command = [pip, "install", "--quiet", "--disable-pip-version-check", "--dry-run", f"{wheel}[all]", *beside]
    started, before = time.monotonic(), _computed()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        sys.exit(f"{' '.join(beside)}: pip cannot resolve it\n{done.stdout}{done.stderr}")
    return time.monotonic() - started, _computed() - before


def _computed():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(wheel):
    with tempfile.TemporaryDirectory() as directory:
        venv.create(directory, with_pip=True)  # its pip is the one that this Python brings
        pip = str(Path(directory) / "bin/pip")
        print(subprocess.run([pip, "--version"], capture_output=True, text=True, check=True).stdout.split(" from")[0])
        for beside in BESIDE:
            for limit in (DOWNLOADS, SECONDS, SECONDS):
                taken = resolve(pip, wheel, beside, limit)
                if taken is not None and taken[0] <= SECONDS:
                    seconds, computed = taken
                    print(f"all extras beside {' '.join(beside)}: {seconds:.1f} s, pip computed for {computed:.1f} s")
                    break
            else:
                sys.exit(f"all extras beside {' '.join(beside)}: not resolved in {SECONDS} s")


if __name__ == "__main__":
    main(sys.argv[1])
