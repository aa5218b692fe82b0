"""`agola-core serve` with tokens, and what it refuses."""

import signal

import pytest

from agola_cli.options.types import DURATION, RETENTION
from agola_core.errors import ForbiddenError, UnauthorizedError
from agola_core.runservice.model.options import RetentionRule
from agola_core.runservice.model.requests import RunCreateRequest, RunQuery
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
        (["--host", "0.0.0.0", "--no-tokens"], "loopback only"),
        (["--host", "192.0.2.1", "--trust-network"], "cannot listen"),
        (["--client-tokens", "/nowhere"], "cannot be read"),
        (["--tls-key", "/nowhere"], "needs both"),
        (["--tls-key", "/nowhere", "--tls-certificate", "/nowhere"], "certificate"),
        (["--executor-network", "everything"], "not a network"),
        (["--retain", "project=1d"], "no rule such as"),
        (["--retain", "/=1y"], "'1y' is no duration such as 90s"),
        (["--retain", "/=1d,2d"], "twice"),
        (["--retain", "/=1", "--retain", "/=2d"], "says twice what is kept of /"),
        (["--cache-expiry", "0"], "'0' is no duration"),
        (["--storage", "posix:///dev/null/x"], "no directory, or lies below a file"),
        (["--access-log", "/nowhere/at/all"], "cannot be written"),
    ],
)
def test_options_that_do_not_do_are_one_clear_error(tree, options, message):
    done = tree.run("serve", "--port", "0", *options)
    assert done.returncode in {2, 3}
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("/=90d", RetentionRule("/", 90 * 86400.0, None)),
        ("/project/p=100", RetentionRule("/project/p", None, 100)),
        ("/project/p=1.5h,0", RetentionRule("/project/p", 5400.0, 0)),
        ("/project/p=7,4w", RetentionRule("/project/p", 4 * 7 * 86400.0, 7)),
    ],
)
def test_which_runs_are_kept_is_said_by_age_and_count(text, rule):
    assert RETENTION.convert(text, None, None) == rule
    assert DURATION.convert("90", None, None) == 90.0


@pytest.mark.parametrize("option", ["--retention-interval", "--upkeep-interval"])  # the latter is its name of old
def test_runs_beyond_the_number_to_keep_are_deleted_by_the_service(agola_runservice_factory, option):
    service = agola_runservice_factory(arguments=["--retain", "/project/p=1", option, "0.05s"])
    client = service.client()
    for group in ("/project/p", "/project/p", "/project/q", "/project/q"):
        last = client.create_run(RunCreateRequest(name="r", group=group, setup_errors=["wrong"])).run
    while len(client.list_runs(RunQuery(groups=("/project/p",)))) > 1:
        client.wait_change(last, 0.05)
    assert len(client.list_runs(RunQuery(groups=("/project/q",)))) == 2
