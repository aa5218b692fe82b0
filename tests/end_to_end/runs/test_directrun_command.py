"""`agola-core directrun`, as a person in a git checkout meets it."""

import json
import subprocess

import pytest

from agola_cli.runs.launch.checkout import Checkout
from agola_cli.runs.launch.directrun import run_group

CACHING = """
    runs:
      - name: caching
        tasks:
          - name: only
            steps:
              - restore_cache: {keys: [things], dest_dir: things}
              - run: "ls things/mark 2>/dev/null && echo found || echo empty"
              - run: "mkdir -p things && touch things/mark"
              - save_cache: {key: things, contents: [{source_dir: things}]}
    """

LISTING = """
    runs:
      - name: listing
        tasks:
          - name: only
            environment: {GIVEN: {from_variable: given}}
            steps: [clone, {run: 'ls -A; echo "given: $GIVEN; branch: $AGOLA_GIT_BRANCH; tag: $AGOLA_GIT_TAG"'}]
    """


def git(directory, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
    done = subprocess.run(["git", *identity, *arguments], cwd=directory, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tree):
    git(tree.path, "init", "-q")
    return tree


def test_what_is_tracked_and_untracked_goes_and_what_is_ignored_stays(checkout):
    checkout.configure(LISTING)
    (checkout.path / "tracked").write_text("t")
    (checkout.path / ".gitignore").write_text("ignored\n")
    git(checkout.path, "add", ".")
    (checkout.path / "untracked").write_text("u")
    (checkout.path / "ignored").write_text("i")
    default = checkout.run("directrun", "start")
    assert default.returncode == 0, default.stderr
    assert "| tracked" in default.stdout
    assert "| untracked" in default.stdout
    assert "| ignored" not in default.stdout
    other = checkout.run("directrun", "start", "--no-untracked", "--ignored").stdout
    assert "| tracked" in other
    assert "| untracked" not in other
    assert "| ignored" in other


def test_a_checkout_shares_its_caches_with_itself_and_with_no_other(checkout, tmp_path):
    checkout.configure(CACHING)
    git(checkout.path, "add", ".")
    git(checkout.path, "commit", "-qm", "first")
    git(tmp_path, "clone", "-q", str(checkout.path), "other")
    assert "| empty" in checkout.run("directrun", "start").stdout
    assert "| found" in checkout.run("directrun", "start").stdout
    arguments = ("directrun", "start", str(tmp_path / "other"))
    assert "| empty" in checkout.run(*arguments).stdout
    assert "| found" in checkout.run(*arguments).stdout
    assert "| empty" in checkout.run("directrun", "start", "--user-id", "somebody").stdout
    first, second = (git(path, "config", "agola.repouuid") for path in (checkout.path, tmp_path / "other"))
    assert len(first) == len(second) == 36
    assert first != second


def test_the_run_belongs_to_the_user_and_the_branch_is_master_unless_said(checkout):
    checkout.configure(LISTING)
    git(checkout.path, "checkout", "-qb", "feature")
    git(checkout.path, "commit", "-qm", "Say why\n\nat length", "--allow-empty")
    done = checkout.run("directrun", "start", "--user-id", "u1")
    assert "given: ; branch: master; tag: " in done.stdout
    assert "branch: a/b; tag: " in checkout.run("directrun", "start", "--user-id", "u1", "--branch", "a/b").stdout
    assert "branch: ; tag: v1" in checkout.run("directrun", "start", "--user-id", "u1", "--tag", "v1").stdout
    groups = {item["run"]["group"] for item in checkout.runs()}
    own = git(checkout.path, "config", "agola.repouuid")
    assert groups == {f"/user/u1/branch/master/{own}", f"/user/u1/branch/a%2Fb/{own}", f"/user/u1/tag/v1/{own}"}
    assert {item["run"]["annotations"]["message"] for item in checkout.runs()} == {"Say why"}
    assert {item["run"]["annotations"]["user"] for item in checkout.runs()} == {"u1"}
    for event, count in (("manual", len(checkout.runs())), ("push", 0)):
        listed = checkout.run("runs", "list", "--json", "--event", event, "--limit", "99")
        assert len(json.loads(listed.stdout)) == count
    assert checkout.run("run", env={"LOGNAME": "ann\n\x1b[2J"}).returncode == 0
    said = checkout.runs()[0]["run"]["annotations"]
    assert (said["branch"], said["message"], said["user"]) == ("feature", "Say why", "ann")


def test_a_reference_has_a_group_of_its_own():
    assert run_group("u", Checkout(ref="refs/pull/3/head"), "r") == "/user/u/ref/refs%2Fpull%2F3%2Fhead/r"


def test_variables_come_from_files_and_from_the_command_line_over_them(checkout, tmp_path):
    checkout.configure(LISTING)
    file = tmp_path / "variables.yml"
    file.write_text("given: from the file\nother: x\n")
    # Their values are secret: as many stars as they have bytes.
    assert f"given: {'*' * 13};" in checkout.run("directrun", "start", "--var-file", file).stdout
    over = checkout.run("directrun", "start", "--var-file", file, "--var", "given=line")
    assert f"given: {'*' * 4};" in over.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--branch", "a", "--tag", "b"], "give one of branch, tag and ref"),
        (["--var", "novalue"], "expected NAME=VALUE"),
        (["--var", "a="], "--var a= has no value"),
        (["--user-id", "../x"], "not a user id"),
        (["--detach"], "--detach needs --url"),
        (["--run", "missing"], "no run 'missing'"),
        (["--var-file", "no/such/file"], "No such file"),
    ],
)
def test_a_wrong_argument_is_one_line_and_runs_nothing(checkout, arguments, message):
    checkout.configure(LISTING)
    done = checkout.run("directrun", "start", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert checkout.run("runs", "list").returncode == 2 or checkout.runs() == []


def test_outside_of_a_checkout_it_says_what_to_do(tree):
    tree.configure(LISTING)
    done = tree.run("directrun", "start")
    assert done.returncode == 2
    assert "`agola-core run` runs any directory" in done.stderr


def test_a_failing_run_ends_with_1(checkout):
    checkout.configure("runs: [{name: r, tasks: [{name: t, steps: [{run: exit 7}]}]}]")
    assert checkout.run("directrun", "start").returncode == 1
