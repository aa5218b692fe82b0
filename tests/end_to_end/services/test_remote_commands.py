"""Commands on a running service, by `--url`, as a person on another machine meets them."""

import json
import subprocess

import pytest

CONFIG = """
    runs:
      - name: gated
        tasks:
          - {name: build, steps: [clone, {run: "ls; echo built"}]}
          - {name: deploy, approval: true, depends: [build], steps: [{run: "test -z \\"$FAIL\\""}]}
    """


@pytest.fixture
def remote(tree, agola_runservice):
    subprocess.run(["git", "init", "-q"], cwd=tree.path, check=True)
    tree.configure(CONFIG)

    def run(*arguments, **options):
        done = tree.run(*arguments, env={"AGOLA_URL": agola_runservice.url, "AGOLA_DATA_DIR": "", **options})
        assert "Traceback" not in done.stderr, done.stderr
        return done

    run.url = agola_runservice.url
    run.tree = tree
    return run


def test_a_direct_run_is_started_approved_followed_restarted_and_deleted(remote):
    started = remote("directrun", "start", "--detach", "--user-id", "u1", "--env", "FAIL=yes")
    assert started.returncode == 0, started.stderr
    run_id = started.stdout.strip()
    follower = remote.tree.start("runs", "logs", run_id, "-f", "--url", remote.url)
    seen = []
    for line in follower.stdout:
        seen.append(line)
        if "built" in line and "|" in line:
            break
    while (approved := remote("runs", "approve", run_id)).returncode == 2:
        assert "waits for approval" in approved.stderr
    assert "approved: deploy" in approved.stderr
    seen += follower.stdout.readlines()
    follower.stdout.close()
    assert follower.wait() == 1
    assert any("unpacked the source tree" in line for line in seen), seen
    (listed,) = json.loads(remote("runs", "list", "--json", "--group", "/user/u1").stdout)
    assert listed["state"] == "failed"
    assert "✗ deploy (after build)" in remote("runs", "show", "last").stdout
    again = remote("runs", "restart", run_id, "--detach", "--from-start")
    assert again.returncode == 0, again.stderr
    assert remote("runs", "stop", "last").returncode == 0
    assert remote("runs", "delete", run_id, "--yes").returncode == 0
    assert remote("runs", "show", run_id).returncode == 2


def test_what_goes_wrong_is_one_line_and_an_exit_code(remote):
    away = remote("runs", "list", AGOLA_URL="http://127.0.0.1:9")
    assert away.returncode == 3
    assert "127.0.0.1:9" in away.stderr
    assert len(away.stderr.splitlines()) == 1
    assert remote("runs", "show", "missing").returncode == 2
    wrong = remote("runs", "list", AGOLA_URL="no url")
    assert wrong.returncode == 2
    both = remote("runs", "list", "--url", remote.url, "--data-dir", "x")
    assert both.returncode == 2
    assert "not by both" in both.stderr


def test_a_token_comes_from_a_file_or_the_environment(tree, agola_runservice_factory, tmp_path):
    tokens = {"AGOLA_CLIENT_TOKEN": "c" * 32, "AGOLA_EXECUTOR_TOKEN": "e" * 32, "AGOLA_ADMIN_TOKEN": "a" * 32}
    service = agola_runservice_factory(environment=tokens)
    refused = tree.run("runs", "list", "--url", service.url)
    assert refused.returncode == 4
    assert "token" in refused.stderr
    assert tree.run("runs", "list", "--url", service.url, env={"AGOLA_TOKEN": "c" * 32}).returncode == 0
    file = tmp_path / "token"
    file.write_text("c" * 32 + "\n")
    assert tree.run("runs", "list", "--url", service.url, "--token-file", file).returncode == 0
    file.write_text("")
    empty = tree.run("runs", "list", "--url", service.url, "--token-file", file)
    assert empty.returncode == 2
    assert "is empty" in empty.stderr


def test_the_store_behind_a_service_is_looked_after(remote, tmp_path):
    remote("directrun", "start", "--detach", "--user-id", "u1")
    made = remote("checkpoint", "--json")
    assert made.returncode == 0, made.stderr
    sequence = json.loads(made.stdout)["checkpointed"]
    listed = json.loads(remote("checkpoints", "--json").stdout)
    assert listed[-1]["sequence"] == sequence
    remote("directrun", "start", "--detach", "--user-id", "u2")
    assert json.loads(remote("gc", "--dry-run", "--json").stdout) == []
    for form in ("native", "agola"):
        file = tmp_path / form
        done = remote("export", "--at", sequence, "--format", form, "-o", file)
        assert done.returncode == 0, done.stderr
        assert b'"data_type":"runcounter"' in file.read_bytes().replace(b" ", b"")
    checked = remote("import", "--dry-run", "--json", tmp_path / "native")
    assert json.loads(checked.stdout)["exported_at"] == sequence
    refused = remote("export", "--at", "yesterday", "-o", tmp_path / "none")
    assert refused.returncode == 2
    assert not list(tmp_path.glob("none*"))
