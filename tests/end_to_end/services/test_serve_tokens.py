"""A service that was given no tokens: who gets in, and who finds the tokens by himself."""

import os
import signal
import stat
from contextlib import contextmanager

import httpx2
import pytest

from agola_cli.connect.local_services import announced, find_token

API = "/api/v1alpha"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of the user's own, so that notes of other tests' services are not seen."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def serve(home, tree, wait_for_line):
    @contextmanager
    def start(*options):
        process = tree.start("serve", "--port", "0", *options)
        try:
            lines = wait_for_line(process, "serving on ")
            yield lines[-1].split()[-1], "".join(lines)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(20)
            process.stdout.close()

    return start


def statuses(url, token=""):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx2.Client(base_url=url, headers=headers, trust_env=False) as client:
        return [
            client.get(f"{API}/runs").status_code,
            client.get(f"{API}/executor/e/tasks").status_code,
            client.get(f"{API}/executors").status_code,
            client.put(f"{API}/maintenance").status_code,
            client.get("/").status_code,
            client.get("/healthz").status_code,
        ]


def test_without_tokens_nobody_gets_in_but_commands_of_the_same_user(serve, tree):
    with serve() as (url, shown):
        assert statuses(url) == [401, 401, 401, 401, 303, 200]
        for name in (url, url.replace("127.0.0.1", "localhost")):
            listed = tree.run("runs", "list", "--json", "--url", name, env={"AGOLA_DATA_DIR": ""})
            assert (listed.returncode, listed.stdout.strip()) == (0, "[]"), listed.stderr
        stranger = tree.run("runs", "list", "--url", url, env={"AGOLA_DATA_DIR": "", "XDG_STATE_HOME": "/nowhere"})
        assert stranger.returncode != 0
        assert "a token of kind client is needed" in stranger.stderr
        mistaken = tree.run("runs", "list", "--url", url, env={"AGOLA_DATA_DIR": "", "AGOLA_TOKEN": "mistyped"})
        assert mistaken.stderr == "agola-core: the token that was shown is not valid\n"
        directory = tree.data_dir / "tokens"
        assert str(directory) in shown
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        made = {}
        for kind in ("client", "executor", "admin"):
            assert stat.S_IMODE((directory / kind).stat().st_mode) == 0o600
            made[kind] = (directory / kind).read_text().strip()
            assert made[kind] not in shown
        assert len(set(made.values())) == 3
        assert statuses(url, made["client"])[:4] == [200, 403, 200, 403]
        assert statuses(url, made["executor"])[:4] == [403, 200, 403, 403]
        assert not list(directory.glob(".*"))
    with serve() as (url, _):  # the second start keeps them
        assert statuses(url, made["client"])[0] == 200
    assert list((tree.data_dir.parent / "state").glob("**/*.json")) == []


def test_given_tokens_are_not_made_and_the_others_are(serve, tree, tmp_path):
    (tmp_path / "given").write_text("a-given-token\n")
    with serve("--client-tokens", str(tmp_path / "given")) as (url, _):
        assert not (tree.data_dir / "tokens/client").exists()
        assert statuses(url, "a-given-token")[0] == 200
        assert statuses(url)[:4] == [401, 401, 401, 401]


def test_a_service_that_is_open_is_asked_for(serve, tree):
    with serve("--no-tokens") as (url, _):
        assert statuses(url)[:3] == [200, 200, 200]
        assert not (tree.data_dir / "tokens").exists()


def test_an_executor_of_the_same_user_finds_its_token(serve, tree, wait_for_line, tmp_path):
    with serve("--no-executor") as (url, _):
        executor = tree.start("executor", "--url", url, "--directory", tmp_path / "executor")
        try:
            wait_for_line(executor, "listens on")
            admin = (tree.data_dir / "tokens/admin").read_text().strip()
            found = httpx2.get(f"{url}{API}/executors", headers={"Authorization": f"Bearer {admin}"}, trust_env=False)
            assert len(found.json()) == 1
        finally:
            executor.send_signal(signal.SIGTERM)
            executor.wait(20)
            executor.stdout.close()


def test_a_stranger_on_the_port_of_a_service_that_is_gone_is_shown_no_token(home):
    (home / "tokens").mkdir()
    (home / "tokens/admin").write_text("the-token\n")
    with announced("http://127.0.0.1:4000", home / "tokens"):
        assert find_token("http://127.0.0.1:4000", "admin") == ("http://127.0.0.1:4000", "the-token")
        assert find_token("http://localhost:4000/", "admin") == ("http://127.0.0.1:4000/", "the-token")
        for other in ("http://127.0.0.2:4000", "http://127.0.0.1:4001", "http://ci.example:4000", "http://[::1]:4000"):
            assert find_token(other, "admin") == (other, "")
        (note,) = home.glob("state/**/*.json")
        assert stat.S_IMODE(note.stat().st_mode) == 0o600
        text = note.read_text()
        assert "the-token" not in text
        note.write_text(text.replace(f'"pid":{os.getpid()}', '"pid":999999999'))
        assert find_token("http://127.0.0.1:4000", "admin")[1] == ""  # it crashed, and its note is left
        note.write_text(text.replace('"start":', '"start":1'))
        assert find_token("http://127.0.0.1:4000", "admin")[1] == ""  # another process has its number
        note.write_text("{")
        assert find_token("http://127.0.0.1:4000", "admin")[1] == ""


def test_a_service_on_every_address_is_found_on_this_machine(home):
    (home / "tokens").mkdir()
    (home / "tokens/admin").write_text("the-token\n")
    with announced("http://0.0.0.0:4000", home / "tokens"):
        assert find_token("http://127.0.0.1:4000", "admin")[1] == "the-token"
        assert find_token("http://192.0.2.1:4000", "admin")[1] == ""
