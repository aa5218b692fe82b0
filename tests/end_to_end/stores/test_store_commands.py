"""The commands on a store, as a person at a shell meets them."""

import json
import re
import socket

import pytest

import agola_core
from tests.support.terminal import Terminal


@pytest.fixture
def used(tree):
    tree.configure("runs: [{name: r, tasks: [{name: t, steps: [{run: echo hello}]}]}]")
    assert tree.run("run", ".").returncode == 0
    return tree


def test_an_export_comes_back_by_an_import(used, tmp_path):
    backup = tmp_path / "backup"
    done = used.run("export", "-o", backup)
    assert done.returncode == 0
    assert backup.read_bytes() == used.run("export").stdout.encode()
    used.run("run", ".")
    assert len(used.runs()) == 2
    checked = used.run("import", backup, "--dry-run")
    assert checked.returncode == 0
    assert "checked: 1 run, 1 runconfig, 1 runcounter" in checked.stderr
    assert len(used.runs()) == 2
    refused = used.run("import", backup, "--yes")
    assert refused.returncode == 2
    assert "not in maintenance mode" in refused.stderr
    assert used.run("maintenance", "on").returncode == 0
    assert "--yes" in used.run("import", backup).stderr
    assert used.run("import", backup, "--yes").returncode == 0
    assert [item["state"] for item in used.runs()] == ["success"]
    backup.write_bytes(backup.read_bytes()[:-20])
    refused = used.run("import", backup, "--yes")
    assert refused.returncode == 2
    assert "nothing was imported" in refused.stderr
    assert len(used.runs()) == 1
    refused = used.run("run", ".")
    assert refused.returncode == 4
    assert "maintenance mode" in refused.stderr
    assert used.run("maintenance", "off").returncode == 0
    assert used.run("run", ".").returncode == 0
    assert len(used.runs()) == 2


def test_a_question_comes_after_everything_that_refuses_and_no_changes_nothing(used, tmp_path):
    def on_a_terminal(answer, *arguments):
        screen = Terminal(used.command(*arguments), used.path, {"AGOLA_DATA_DIR": str(used.data_dir)})
        if answer:
            screen.wait_for("go on?")
            screen.type(answer)
        return screen.wait(), screen.text

    no, end_of_input, interrupt = b"n\n", b"\x04", b"\x03"
    backup, torn = tmp_path / "backup", tmp_path / "torn"
    assert used.run("export", "-o", backup).returncode == 0
    torn.write_bytes(backup.read_bytes()[:-20])
    code, text = on_a_terminal(None, "import", backup)
    assert (code, "not in maintenance mode" in text, "go on?" in text) == (2, True, False), text
    for answer in (no, end_of_input):
        code, text = on_a_terminal(answer, "runs", "delete", "last")
        assert (code, text.splitlines()[-1]) == (1, "nothing was changed")
    assert on_a_terminal(interrupt, "runs", "delete", "last")[0] == 130
    assert used.run("maintenance", "on").returncode == 0
    code, text = on_a_terminal(None, "import", torn)
    assert (code, "nothing was imported" in text, "go on?" in text) == (2, True, False), text
    code, text = on_a_terminal(no, "import", backup)
    assert (code, text.splitlines()[-1]) == (1, "nothing was changed")
    assert len(used.runs()) == 1


def test_an_export_and_a_verify_are_told_by_status(used, tmp_path):
    fresh = json.loads(used.run("status", "--json").stdout)
    assert (fresh["last_export"], fresh["last_verify"], fresh["storage_answers"]) == (None, None, True)
    assert used.run("export", "--at", fresh["sequence"], "-o", tmp_path / "past").returncode == 0
    assert used.run("export", "-o", tmp_path / "no/such").returncode == 3
    assert "last export           none known" in used.run("status").stdout
    assert used.run("export", "-o", tmp_path / "backup").returncode == 0
    assert used.run("verify").returncode == 0
    told = json.loads(used.run("status", "--json").stdout)
    assert told["last_export"]["size"] == (tmp_path / "backup").stat().st_size
    assert told["last_export"]["by"].endswith(f"@{socket.gethostname()}")
    assert told["last_verify"]["objects"] > 0
    text = used.run("status").stdout
    assert f"native, {told['last_export']['size']} bytes" in text
    assert ": no problems found, " in text


def test_exports_are_packed_and_take_logs_along(used, tmp_path):
    for name, start in (("b.gz", b"\x1f\x8b"), ("b.zst", b"\x28\xb5\x2f\xfd"), ("b", b"{")):
        done = used.run("export", "-o", tmp_path / name, "--include", "logs, archives", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["sections"]["logs"] >= 2
        assert (tmp_path / name).read_bytes().startswith(start)
    packed = used.run("export", "-o", tmp_path / "named", "--compress", "gz")
    assert packed.returncode == 0
    assert (tmp_path / "named").read_bytes().startswith(b"\x1f\x8b")
    assert used.run("maintenance", "on").returncode == 0
    other = {"AGOLA_DATA_DIR": str(tmp_path / "other")}
    (tmp_path / "other").mkdir()
    assert used.run("maintenance", "on", env=other).returncode == 0
    for name in ("b.gz", "b.zst", "b"):
        done = used.run("import", tmp_path / name, "--yes", "--json", env=other)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["entries"] == {"run": 1, "runconfig": 1, "runcounter": 1}
    assert used.run("maintenance", "off", env=other).returncode == 0
    (run,) = json.loads(used.run("runs", "list", "--json", env=other).stdout)
    assert "hello" in used.run("runs", "logs", run["run"]["id"], env=other).stdout
    wrong = used.run("export", "--include", "caches")
    assert wrong.returncode == 2
    assert "include takes any of logs, archives" in wrong.stderr
    unwritable = used.run("export", "-o", tmp_path / "no/such")
    assert unwritable.returncode == 3
    assert "no/such: No such file" in unwritable.stderr


def test_agolas_export_format_has_no_separators(used):
    text = used.run("export", "--format", "agola").stdout
    decoder, position, entries = json.JSONDecoder(), 0, []
    while position < len(text):
        entry, position = decoder.raw_decode(text, position)
        entries.append(entry)
    assert [entry["data_type"] for entry in entries] == ["run", "runconfig", "runcounter"]
    assert entries[0]["id"] == entries[1]["id"]


def test_status_checkpoint_and_garbage(used):
    before = json.loads(used.run("status", "--json").stdout)
    assert used.run("checkpoint").returncode == 0
    after = json.loads(used.run("status", "--json").stdout)
    assert after["manifest"] == before["manifest"] + 1
    assert after["checkpointed"] == after["sequence"] == before["sequence"]
    assert after["uncheckpointed_wals"] == 0
    assert "data files" in used.run("status").stdout
    assert json.loads(used.run("gc", "--dry-run", "--json").stdout) == []


def test_the_past_is_listed_and_exported(used, tmp_path):
    assert json.loads(used.run("checkpoint", "--json").stdout)["number"] >= 1
    *_, then = json.loads(used.run("checkpoints", "--json").stdout)
    assert then["sequence"] in used.run("checkpoints").stdout
    whole = tmp_path / "now"
    assert used.run("export", "-o", whole).returncode == 0
    used.run("run", ".")
    assert len(used.runs()) == 2
    done = used.run("export", "--at", then["sequence"], "-o", tmp_path / "then", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["entries"] == {"run": 1, "runconfig": 1, "runcounter": 1}
    objects = [line for line in (tmp_path / "then").read_text().splitlines() if '"data_type"' in line]
    assert objects == [line for line in whole.read_text().splitlines() if '"data_type"' in line]
    for wrong, said in (("yesterday", "expected a sequence, or a time"), (f"{then['sequence'][:-1]}v", "no WAL has")):
        refused = used.run("export", "--at", wrong)
        assert refused.returncode == 2
        assert said in refused.stderr
    done = used.run("export", "--at", then["sequence"], "--include", "logs", "-o", tmp_path / "logs", "--json")
    assert json.loads(done.stdout)["sections"]["logs"] >= 2
    assert used.run("import", "--dry-run", tmp_path / "logs").returncode == 0
    agola = used.run("export", "--at", then["sequence"], "--format", "agola").stdout
    assert re.findall(r'"data_type":"(\w+)"', agola) == ["run", "runconfig", "runcounter"]


@pytest.mark.parametrize(
    "command", [("status",), ("checkpoint",), ("checkpoints",), ("gc",), ("verify",), ("export",), ("runs", "list")]
)
def test_commands_that_look_at_a_store_make_none(tree, tmp_path, command):
    empty = tmp_path / "empty"
    empty.mkdir()
    done = tree.run(*command, env={"AGOLA_DATA_DIR": str(empty)})
    assert done.returncode == 2
    assert f"no store in {empty}" in done.stderr
    assert list(empty.iterdir()) == []


def test_a_store_is_named_by_its_halves(used):
    halves = ("--storage", used.data_dir / "storage", "--coordinator", used.data_dir / "coordinator.db")
    for command in ("status", "checkpoint", "checkpoints", "gc", "verify", "export"):
        done = used.run(command, *halves, env={"AGOLA_DATA_DIR": ""})
        assert done.returncode == 0, done.stderr
    done = used.run("status", *halves[:2], env={"AGOLA_DATA_DIR": "", "XDG_DATA_HOME": str(used.path / "none")})
    assert done.returncode == 2
    assert "half of a store: name the other by --coordinator" in done.stderr


def test_the_command_line_s_store_counts_before_the_environment_s_service(used):
    nowhere = "http://127.0.0.1:9"
    assert used.run("status", env={"AGOLA_URL": nowhere}).returncode == 3
    assert used.run("status", "--data-dir", used.data_dir, env={"AGOLA_URL": nowhere}).returncode == 0
    both = used.run("maintenance", "status", "--data-dir", used.data_dir, "--url", nowhere)
    assert both.returncode == 2
    assert "not by both" in both.stderr


def test_verify_names_what_is_damaged(used):
    used.run("checkpoint")
    assert used.run("verify").returncode == 0
    (file,) = (used.data_dir / "storage/data/data").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    done = used.run("verify")
    assert done.returncode == 1
    assert f"data/{file.name} at offset" in done.stdout
    assert len(json.loads(used.run("verify", "--json").stdout)) == 1


def test_recover_takes_the_state_of_the_storage(used):
    before = json.loads(used.run("status", "--json").stdout)
    assert json.loads(used.run("recover", "--json").stdout)["epoch"] == before["epoch"] + 1
    assert f"epoch {before['epoch'] + 2} with manifest" in used.run("recover").stdout
    assert used.run("verify").returncode == 0
    assert len(used.runs()) == 1


def test_verify_repairs_what_has_a_second_source(used):
    batch = next((used.data_dir / "storage/data/lineages").rglob("*.wals"))
    batch.write_bytes(b"nothing")
    assert used.run("verify").returncode == 1
    done = used.run("verify", "--repair", "--json")
    assert done.returncode == 0, done.stderr
    assert all(item["done"] for item in json.loads(done.stdout)["repairs"])
    assert json.loads(done.stdout)["findings"] == []
    used.run("checkpoint")
    (file,) = (used.data_dir / "storage/data/data").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    done = used.run("verify", "--repair")
    assert done.returncode == 0, done.stderr
    assert "repaired: lineages/" in done.stderr
    assert "no problems found" in done.stderr
    assert len(used.runs()) == 1


def test_config_check(used, tmp_path):
    assert "run 'r': 1 tasks" in used.run("config", "check", ".").stdout
    (tmp_path / "bad.yml").write_text("runs: 1")
    done = used.run("config", "check", tmp_path / "bad.yml")
    assert done.returncode == 2
    assert "bad.yml:1: runs: expected a list" in done.stderr


def test_a_store_is_compacted_here_and_behind_a_service(used, agola_runservice):
    done = used.run("compact", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] >= 1
    assert "data files of" in used.run("compact").stderr
    remote = used.run("compact", "--url", agola_runservice.url, "--json", env={"AGOLA_DATA_DIR": ""})
    assert remote.returncode == 0, remote.stderr
    assert set(json.loads(remote.stdout)) == {"files_before", "bytes_before", "files", "bytes"}


def test_recover_takes_no_store_from_who_has_it_open(used):
    with agola_core.open(used.data_dir) as dm:
        refused = used.run("recover")
        assert refused.returncode == 4
        assert f"others have the store open: {dm.options.instance} (pid " in refused.stderr
        assert "say --force" in refused.stderr
        dm.status()
        assert used.run("recover", "--force").returncode == 0
    assert used.run("recover").returncode == 0
