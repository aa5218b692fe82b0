"""`agola-core config check`: warnings, strictness, what a real Agola does, and many files at once."""

import json

import pytest
from click.testing import CliRunner

from agola_cli.main import cli
from agola_core.errors import ConfigError
from agola_core.runconfig import FindingKind, load_config, parse_config
from agola_core.runconfig.verdict import predict_verdict

GOOD = "runs: [{name: r, tasks: [{name: t, runtime: {containers: [{image: b}]}, steps: [{run: x}]}]}]\n"


def check(*arguments):
    result = CliRunner().invoke(cli, ["config", "check", *map(str, arguments)], standalone_mode=False)
    return result.return_value, result.stdout, result.stderr


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "good.yml").write_text(GOOD)
    (tmp_path / "deep/warned.yaml").write_text(GOOD + "version: v0\n")
    (tmp_path / "refused.json").write_text('{"runs": []}')
    (tmp_path / "newer.star").write_text("def main(ctx): return {}")
    (tmp_path / "notes.txt").write_text("no configuration")
    return tmp_path


def test_a_directory_of_files_is_summed_up(directory):
    code, out, errors = check(directory)
    assert code == 2
    assert out.splitlines()[-1] == "4 files: 2 accepted (1 with warnings), 2 refused"
    assert f"warning: {directory}/deep/warned.yaml:2: version: version is ignored" in errors
    assert f"agola-core: {directory}/refused.json:1: runs: no runs defined" in errors
    assert "configurations in Starlark (Agola 0.6 and later) are not read here" in errors
    code, out, errors = check("--json", directory)
    assert code == 2
    assert not errors
    found = json.loads(out)
    assert found["summary"] == {"files": 4, "accepted": 2, "with_warnings": 1, "refused": 2}
    warned = found["files"][0]
    assert warned["runs"] == {"r": 1}
    assert [(each["line"], each["place"]) for each in warned["warnings"]] == [(2, "version")]


def test_files_of_other_kinds_are_left_out(directory):
    (directory / "package.json").write_text('{"name": "x", "scripts": {"test": "jest"}}')
    (directory / "compose.yml").write_text("services: {db: {image: postgres}}\n")
    (directory / "utf16.yml").write_bytes(GOOD.encode("utf-16"))
    (directory / "deep/.agola").mkdir()
    (directory / "deep/.agola/config.yml").write_text("tasks: []\n")
    code, out, errors = check("--json", directory)
    assert code == 2
    checked = json.loads(out)
    names = {item["file"].removeprefix(f"{directory}/") for item in checked["files"]}
    wanted = {"good.yml", "deep/warned.yaml", "refused.json", "newer.star", "utf16.yml", "deep/.agola/config.yml"}
    assert names == wanted
    assert "left out: 2 files without a key 'runs'" in errors


def test_strictness_makes_warnings_errors(directory):
    file = directory / "deep/warned.yaml"
    assert check(file)[0] == 0
    assert check("--strict", file)[0] == 2
    assert check("--strict", directory / "good.yml")[0] == 0


def test_nothing_to_check_is_an_error(tmp_path):
    result = CliRunner().invoke(cli, ["config", "check", str(tmp_path)], standalone_mode=False)
    assert "there is no file that may be one" in str(result.exception)


def test_what_agola_does_is_said(directory):
    assert "good.yml: Agola 0.2 accepts it, and does the same" in check("--agola", directory / "good.yml")[1]
    extended = directory / "extended.yml"
    extended.write_text("runs: [{name: r, tasks: [{name: t, timeout: 5, environment: {A: 1}}]}]\n")
    code, out, _ = check("--agola", extended)
    assert code == 0
    assert "extended.yml: Agola 0.2 refuses it\n" in out
    assert "extended.yml:1: runs[0].tasks[0]: Agola 0.2 refuses a task without a runtime, such as 't'" in out
    assert "runs[0].tasks[0].timeout: Agola 0.2 ignores timeout" in out
    assert "environment.A: Agola 0.2 refuses a value that is no string: put it in quotes" in out


@pytest.mark.parametrize(
    ("text", "accepts", "detail"),
    [
        (GOOD, True, ""),
        (GOOD.replace("name: t,", "name: t, labels: {a: b},"), True, "Agola 0.2 ignores labels"),
        (GOOD.replace("{run: x}", "{run: {command: x, timeout: 5}}"), True, "ignores the timeout of a step"),
        (GOOD.replace("{run: x}", "clone"), False, "Agola 0.2 refuses a step that is a string"),
        (GOOD.replace("{run: x}", '{run: "x\\n"}'), False, "refuses a command with a newline at its end"),
        (GOOD.replace("image: b", "image: b, environment: {Y: a}"), True, "Agola 0.2 names this variable true"),
        ("docker_registries_auth: {r: {type: encodedauth, auth: e}}\n" + GOOD, True, "loses the auth"),
        ("docker_registries_auth: {r: {auth: {from_variable: e}}}\n" + GOOD, False, "Agola before 0.7 refuses"),
        ("runs: []", False, ""),
        (GOOD.replace("name: t,", "name: t, timeout: soon,"), None, "Agola 0.2 ignores it"),
        (GOOD.replace("{run: x}", "{save_to_workspace: {always: true}}"), True, "Agola 0.2 ignores always"),
        ("x: " + "[" * 2000, None, "no limit of size or depth"),
        (" " * (1 << 20) + GOOD, None, "no limit of size or depth"),
        (GOOD.replace("{name: t", "{when: {branch: '/\\p{Greek}/'}, name: t"), None, "Agola 0.2 reads it"),
    ],
)
def test_a_verdict(text, accepts, detail):
    findings = []
    refused = False
    try:
        parse_config(text.encode(), "c", findings=findings)
    except ConfigError:
        refused = True
    verdict = predict_verdict(findings, refused=refused)
    assert verdict.accepts is accepts
    assert detail in "\n".join(map(str, verdict.details))


@pytest.mark.skipif(pytest.importorskip("importlib.util").find_spec("_jsonnet") is None, reason="no jsonnet")
def test_jsonnet_that_is_a_function_gets_its_context(tmp_path):
    path = tmp_path / "config.jsonnet"
    path.write_text(
        "local lib = import 'lib.libsonnet';\n"
        "function(ctx) { runs: [{ name: ctx.ref_type + ctx.branch + ctx.pull_request_id, tasks: [lib.task] }] }"
    )
    (tmp_path / "lib.libsonnet").write_text("{ task: { name: 't', runtime: { containers: [{ image: 'b' }] } } }")
    findings = []
    config = load_config(path, findings, {"ref_type": "branch", "branch": "main"})
    assert config.runs[0].name == "branchmain"
    assert [finding.kind for finding in findings] == [FindingKind.REFUSED] * 2
    assert "Agola 0.2 refuses to import 'lib.libsonnet'" in str(findings[0])
    assert "Agola before 0.6 refuses a function that needs ctx" in str(findings[1])
