"""`agola-core serve` with tokens, and what it refuses."""

import signal

import pytest

from agola_core.errors import ForbiddenError, UnauthorizedError
from agola_core.runservice.requests import RunCreateRequest, RunQuery
from agola_http.client import Client

SECRETS = {"client": "canary-of-clients", "executor": "canary-of-executors", "admin": "canary-of-admins"}


@pytest.fixture
def token_options(tmp_path):
    options = []
    for kind, secret in SECRETS.items():
        (tmp_path / kind).write_text(f"# {kind}\n{secret}\n")
        options += [f"--{kind}-tokens", str(tmp_path / kind)]
    return options


def test_tokens_are_asked_for_and_show_nowhere(tree, wait_for_line, token_options):
    process = tree.start("-vv", "serve", "--port", "0", "--access-log", "-", *token_options)
    lines = wait_for_line(process, "serving on ")
    url = lines[-1].split()[-1]
    with Client(url) as client, pytest.raises(UnauthorizedError):
        client.list_runs(RunQuery())
    with Client(url, "canary-that-is-wrong") as client, pytest.raises(UnauthorizedError):
        client.list_runs(RunQuery())
    with Client(url, SECRETS["client"]) as client:
        run = client.create_run(RunCreateRequest(name="r", group="/project/p", setup_errors=["wrong"])).run
        assert [run.id for run in client.list_runs(RunQuery())] == [run.id]
        with pytest.raises(ForbiddenError):
            client.enable_maintenance()
    with Client(url, SECRETS["admin"]) as client:
        exported = b"".join(client.export_stream())
        status = repr(client.status()) + repr(client.maintenance_status())
    process.send_signal(signal.SIGTERM)
    logged = "".join(lines) + process.stdout.read()
    assert process.wait(30) == 0
    process.stdout.close()
    assert " 401 " in logged
    assert "canary" not in logged + status + exported.decode()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "loopback only"),
        (["--host", "192.0.2.1", "--trust-network"], "cannot listen"),
        (["--client-tokens", "/nowhere"], "cannot be read"),
        (["--tls-key", "/nowhere"], "needs both"),
        (["--tls-key", "/nowhere", "--tls-certificate", "/nowhere"], "certificate"),
        (["--executor-network", "everything"], "not a network"),
        (["--access-log", "/nowhere/at/all"], "cannot be written"),
    ],
)
def test_options_that_do_not_do_are_one_clear_error(tree, options, message):
    done = tree.run("serve", "--port", "0", *options)
    assert done.returncode in {2, 3}
    assert message in done.stderr
    assert "Traceback" not in done.stderr
