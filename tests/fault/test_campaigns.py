"""Slices of the fault campaigns, and the checker of histories against histories that are wrong.

`make soak` goes on where these end.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.histories.history import Read, Refusal, Unknown, Write, violations
from tests.soak.planted import BUGS

ROOT = Path(__file__).parents[2]
SLICES = [  # campaign, number of trials, first seed: each a few seconds of processor time, also where that is shared
    ("simulation", 12, 1),
    ("kill", 3, 1),
    ("kill", 3, 4),
    ("kill-remote", 1, 1),
    ("zombie", 2, 1),
    ("power", 2, 1),
    ("errors", 3, 1),
    ("full-disk", 1, 1),
    ("clock", 2, 1),
    ("histories", 6, 1),
    ("fuzz", 2, 1),
    ("rot", 4, 1),
    ("attack", 1, 1),
]


@pytest.mark.parametrize(("campaign", "trials", "seed"), SLICES)
def test_a_slice_of_a_campaign_finds_nothing(campaign, trials, seed):
    slices = [campaign, "--trials", str(trials), "--seed", str(seed)]
    command = [sys.executable, "-W", "error", "-m", "tests.soak", *slices]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    if ": skipped: " in done.stdout:
        pytest.skip(done.stdout)
    assert "violations: 0" in done.stdout


@pytest.mark.parametrize("bug", BUGS)
def test_a_campaign_finds_a_planted_bug(bug):
    command = [sys.executable, "-m", "tests.soak.planted", bug]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 2:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def written(start, end, seen, revision, value, group="g"):
    return Write(start, end, group, seen, f"{revision:020}", revision, value)


FIRST = written(1, 2, 0, 5, "one")
SECOND = written(3, 4, 5, 8, "two")


def test_a_right_history_passes():
    history = [
        FIRST,
        SECOND,
        Read(0, 0.5, "g", 0, ""),
        Read(2.5, 2.6, "g", 5, "one"),
        Read(2.5, 3.5, "g", 5, "two"),  # a value that is newer than its token: the token will be refused
        Refusal(3.5, 4.5, "g", 5, "late"),
        Unknown(5, "g", 8, "perhaps"),
        Read(6, 7, "g", 11, "perhaps"),
    ]
    assert violations(history) == []


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([FIRST, written(3, 4, 0, 8, "two")], "an update was lost"),
        ([written(3, 4, 0, 5, "one", "a"), written(1, 2, 0, 8, "two", "b")], "had ended before"),
        ([FIRST, SECOND, Read(5, 6, "g", 5, "one")], "does not see"),
        ([FIRST, SECOND, Read(3.5, 3.6, "g", 8, "one")], "a token that is newer than its value"),
        ([FIRST, Read(0.1, 0.2, "g", 5, "one")], "had ended before"),
        ([FIRST, Read(5, 6, "g", 9, "nobody's")], "what nobody wrote"),
        ([FIRST, Refusal(3, 4, "g", 5, "x")], "nobody had changed the group"),
        ([FIRST, Refusal(1, 3, "g", 0, "x"), Read(5, 6, "g", 7, "x")], "shows a write that was refused"),
        ([FIRST, FIRST._replace(group="h")], "two writes at"),
    ],
)
def test_a_wrong_history_is_caught(history, message):
    assert any(message in found for found in violations(history)), violations(history)
