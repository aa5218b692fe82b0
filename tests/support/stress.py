"""Repeats a selection of tests beside a process that burns a core, and says how often it failed.

make stress TESTS="tests/unit/datamanager/test_datamanager.py -k feed" TIMES=20
"""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LINES = 60


def burn():
    """Use one core until the end."""
    while os.getppid() > 1:
        sum(range(100_000))


def main(times, tests):
    """Run the tests, and return 1 when one run failed."""
    burner = multiprocessing.get_context("spawn").Process(target=burn, daemon=True)
    burner.start()
    failed = 0
    try:
        for number in range(1, times + 1):
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            *_, last = done.stdout.strip().splitlines() or [done.stderr.strip()]
            print(f"run {number} of {times}: {last}", flush=True)
            if done.returncode:
                failed += 1
                print("\n".join((done.stdout + done.stderr).splitlines()[-_LINES:]), flush=True)
    finally:
        burner.terminate()
    print(f"{failed} of {times} runs failed")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 3 or not sys.argv[1].isdigit():
        sys.exit('say which tests: make stress TESTS="tests/unit/datamanager/sstable/test_tiers.py" TIMES=20')
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
