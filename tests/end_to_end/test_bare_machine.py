"""The commands where something is missing that most machines have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agola_http.protocol.errors import restore


def test_runs_need_no_git(tree, tmp_path):
    tree.configure("runs: [{name: r, tasks: [{name: t, steps: [clone, {run: test -f .agola/config.yml}]}]}]")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "test"):
        found = next(Path(place, name) for place in ("/bin", "/usr/bin") if Path(place, name).exists())
        (programs / name).symlink_to(found)
    bare = {"PATH": str(programs), "AGOLA_DATA_DIR": "", "XDG_DATA_HOME": str(tmp_path / "home")}
    done = tree.run("run", ".", env=bare)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "success" in tree.run("runs", "list", env=bare).stdout
    refused = tree.run("directrun", "start", env=bare)
    assert refused.returncode == 2
    assert "need git" in refused.stderr


def test_without_their_extra_the_commands_say_what_to_install():
    script = "import sys; sys.modules['click'] = None; from agola_cli.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "agola-core: the commands need the extra cli: pip install 'agola-core[cli]'\n"


@pytest.mark.parametrize("body", [b"<!DOCTYPE HTML>\n<html>\n<p>no such thing", b"<html><body>"])
def test_another_server_s_page_is_told_as_one_line(body):
    assert str(restore(404, body)) == "unknown api error (code: 404): a web page, so this is no run service"
    unrouted = b'{"message":"404 page not found"}'
    assert str(restore(404, unrouted)) == "404 page not found: there is no run service at this URL"
