"""The simulation itself: a seed plays the same each time, and planted bugs are found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.planted import BUGS

ROOT = Path(__file__).parents[2]
PLAY = "from tests.simulation.campaign import play\nfor seed in ({}): print(seed, play(seed, 10).digest())"


def run(*arguments):
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_a_seed_plays_the_same_whatever_was_played_before():
    one, other = run("-c", PLAY.format("1, 2, 3, 4, 5, 6")), run("-c", PLAY.format("6, 5, 4, 3, 2, 1"))
    assert one.returncode == other.returncode == 0, one.stderr + other.stderr
    assert len(one.stdout.splitlines()) == 6
    assert sorted(one.stdout.splitlines()) == sorted(other.stdout.splitlines())


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug):
    done = run("-m", "tests.simulation.planted", bug)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seed" in done.stdout
