"""Check that a wheel with all extras resolves beside what its users have, with the pip that their Python comes with.

    python -m tests.support.resolve WHEEL

Each resolution takes at most 30 s; one that is slower is tried once more, since it may have waited for downloads.
"""

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
    """Return how long it took; None when it took longer than it may."""
    command = [pip, "install", "--quiet", "--disable-pip-version-check", "--dry-run", f"{wheel}[all]", *beside]
    started = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        sys.exit(f"{' '.join(beside)}: pip cannot resolve it\n{done.stdout}{done.stderr}")
    return time.monotonic() - started


def main(wheel):
    with tempfile.TemporaryDirectory() as directory:
        venv.create(directory, with_pip=True)  # its pip is the one that this Python brings
        pip = str(Path(directory) / "bin/pip")
        print(subprocess.run([pip, "--version"], capture_output=True, text=True, check=True).stdout.split(" from")[0])
        for beside in BESIDE:
            taken = resolve(pip, wheel, beside, DOWNLOADS)
            if taken is None or taken > SECONDS:
                taken = resolve(pip, wheel, beside, SECONDS)
            if taken is None:
                sys.exit(f"all extras beside {' '.join(beside)}: not resolved in {SECONDS} s")
            print(f"all extras beside {' '.join(beside)}: {taken:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1])
