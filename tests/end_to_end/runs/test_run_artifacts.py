"""The files that tasks save, taken out of a run: at its end, later, and over HTTP."""

import subprocess

import pytest

from tests.support.terminal import Terminal

BUILD = """
    runs:
      - name: checks
        tasks:
          - name: build
            steps:
              - run: mkdir out && echo one > out/a && echo two > "out/b c" && ln -s a out/l
              - save_to_workspace: {contents: [{source_dir: out, dest_dir: dist, paths: ["**"]}]}
          - name: other/one
            steps:
              - run: echo three > c
              - save_to_workspace: {contents: [{paths: ["c"]}]}
          - name: fails
            steps: [{run: exit 1}, {save_to_workspace: {contents: [{paths: ["c"]}]}}]
    """


@pytest.fixture
def built(tree):
    tree.configure(BUILD)
    return tree


def test_artifacts_come_out_at_the_end_and_later(built, tmp_path):
    assert built.run("run", ".", "--artifacts", tmp_path / "at end").returncode == 1
    assert (tmp_path / "at end/build/dist/b c").read_text() == "two\n"
    assert str((tmp_path / "at end/build/dist/l").readlink()) == "a"
    listed = built.run("runs", "artifacts", "last")
    assert sorted(listed.stdout.splitlines()) == [
        "build: dist/a",
        "build: dist/b c",
        "build: dist/l",
        "other/one: c",
    ]
    assert "fails, step 1: what it saved is not stored" in listed.stderr
    done = built.run("runs", "artifacts", "1", "--task", "other/one", "-o", tmp_path / "later")
    assert done.returncode == 0, done.stderr
    assert [str(path.relative_to(tmp_path / "later")) for path in sorted((tmp_path / "later").rglob("*"))] == [
        "other_one",
        "other_one/c",
    ]
    assert built.run("runs", "artifacts", "last", "--task", "x").returncode == 2
    (tmp_path / "afile").touch()
    for place, reason in [(tmp_path / "afile/x", "Not a directory"), ("/proc/x", "No such file")]:
        for command in (["run", ".", "--artifacts", place], ["runs", "artifacts", "last", "-o", place]):
            refused = built.run(*command)
            assert (refused.returncode, refused.stdout) == (2, ""), refused.stderr
            assert f"{str(place)!r} cannot be written to: {reason}" in refused.stderr
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/build").touch()
    refused = built.run("runs", "artifacts", "last", "-o", tmp_path / "taken")
    assert refused.returncode == 2
    assert f"nothing can be unpacked in '{tmp_path}/taken/build'" in refused.stderr


def test_artifacts_come_out_over_http(built, tmp_path, wait_for_line):
    assert built.run("run", ".").returncode == 1
    server = built.start("serve", "--port", "0", "--no-tokens")
    shown = wait_for_line(server, "serving on ")
    assert not any("WARNING" in line for line in shown)  # about what `run` has left
    url = shown[-1].split()[-1]
    try:
        done = built.run("runs", "artifacts", "last", "--task", "build", "-o", tmp_path / "out", "--url", url)
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/build/dist/a").read_text() == "one\n"


def test_a_run_that_has_ended_is_stored_once(built):
    """What its executor kept goes with it: a log of 50 MB took 100 MB until something else ran."""
    assert built.run("run", ".").returncode == 1
    assert [path.name for path in (built.data_dir / "executor/tasks").iterdir()] == [".removed"]
    assert not list((built.data_dir / "executor/tasks/.removed").iterdir())
    assert built.run("runs", "logs", "last", "--task", "build").returncode == 0


def test_a_step_says_what_its_archive_leaves_out(tree):
    tree.configure("""
    runs:
      - name: checks
        tasks:
          - name: build
            steps:
              - run: mkfifo pipe && touch tool && chmod 4755 tool
              - save_to_workspace: {contents: [{paths: ["pipe", "tool"]}]}
    """)
    done = tree.run("run", ".")
    assert done.returncode == 0, done.stderr
    assert "left out, neither file, directory nor link: 'pipe'" in done.stdout
    assert "left out, set-user and set-group bits: 'tool'" in done.stdout


def test_hostile_names_do_nothing_to_a_terminal_and_come_whole_out_of_a_pipe(tree):
    tree.configure(r"""
    runs:
      - name: checks
        tasks:
          - name: only
            steps:
              - run: touch "$(printf 'a\033[2J')" "$(printf 'b\377')"
              - save_to_workspace: {contents: [{paths: ["*"]}]}
    """)
    assert tree.run("run", ".").returncode == 0
    command = tree.command("runs", "artifacts", "last")
    terminal = Terminal(command, tree.path, {"AGOLA_DATA_DIR": str(tree.data_dir)})
    assert terminal.wait() == 0
    assert "only: a\ufffd[2J" in terminal.text
    assert b"\x1b[2J" not in terminal.output
    piped = subprocess.run(command, cwd=tree.path, env=tree.environment(), capture_output=True, check=True)
    assert sorted(piped.stdout.splitlines()) == [b"only: a\x1b[2J", b"only: b\xff"]
