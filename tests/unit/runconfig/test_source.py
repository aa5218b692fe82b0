"""What of a directory goes to a run: nothing that git ignores, and nothing at all when git cannot tell."""

import io
import os
import shutil
import stat
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from agola_cli.connect.caller import login_name
from agola_cli.options.directories import default_data_dir
from agola_cli.runs.launch.checkout import checkout_as, describe_checkout
from agola_core.encoding.compression import open_zstd
from agola_core.errors import BadRequestError
from agola_core.executor.archives.unpack import unpack
from agola_core.source import git_command, repository_copy
from agola_core.source import tree as source
from agola_core.source.tree import pack_tree


def git(path, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, "-C", path, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.resolve()))  # which may lie in a checkout itself
    path = tmp_path / "checkout"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    (path / ".gitignore").write_text("secret\n")
    (path / "secret").write_text("password")
    (path / "tracked").write_text("t")
    git(path, "add", "-A")
    git(path, "commit", "-qm", "first")
    (path / "untracked").write_text("u")
    return path


def packed(path, **options):
    with open_zstd(io.BytesIO(b"".join(pack_tree(path, **options))), "rb") as file:
        return sorted(tarfile.open(fileobj=io.BytesIO(file.read())).getnames())


def test_ignored_files_are_left_out(checkout):
    assert packed(checkout) == [".gitignore", "tracked", "untracked"]
    (checkout / "inner").mkdir()
    (checkout / "inner/file").write_text("f")
    assert packed(checkout / "inner") == ["file"]
    assert describe_checkout(checkout).branch == "main"


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (b"Say why\n\nat length", "Say why"),
        (b"\n \n  two\tparts \r\nmore", "two parts"),
        (b"clear \x1b[2J\x07\xe2\x80\xae", "clear \ufffd[2J\ufffd\ufffd"),
        (b"caf\xe9", "caf\ufffd"),
        ("é".encode() * 100_000, "é" * 199 + "…"),
        (b"", ""),
    ],
    ids=["first", "blank", "control", "latin1", "long", "none"],
)
def test_a_commit_is_told_by_a_line_of_text_whatever_its_message_is(checkout, message, line):
    command = ("-c", "i18n.commitEncoding=unknown", "commit", "--allow-empty", "--allow-empty-message", "-qF", "-")
    author = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", *author, "-C", checkout, *command], input=message, check=True, capture_output=True)
    git(checkout, "config", "i18n.logOutputEncoding", "latin1")
    git(checkout, "config", "log.showSignature", "true")
    found = describe_checkout(checkout)
    assert found.message == line
    assert found.annotations.get("message", "") == line
    assert checkout_as(checkout, "other", None, None).message == line


def test_a_branch_that_is_not_utf_8_is_told_as_far_as_it_is(checkout):
    git(checkout, "checkout", "-qb", b"caf\xe9")
    found = describe_checkout(checkout)
    assert (found.branch, found.ref) == ("caf\ufffd", "refs/heads/caf\ufffd")


def test_a_user_without_a_name_is_told_by_none(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert login_name() == ""


def test_variables_of_git_change_nothing(checkout, tmp_path, monkeypatch):
    expected = packed(checkout, include_repository=True)
    other = tmp_path / "other"
    git(tmp_path, "init", "-q", "-b", "elsewhere", other)
    (other / "index").write_text("none")
    for name in ("GIT_TRACE", "GIT_TRACE_SETUP", "GIT_TRACE2", "GIT_TRACE_PERFORMANCE", "GIT_CURL_VERBOSE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))  # what a hook of another repository has
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "index"))
    monkeypatch.setenv("GIT_NAMESPACE", "other")
    assert packed(checkout, include_repository=True) == expected
    assert describe_checkout(checkout).branch == "main"
    assert default_data_dir(checkout).name.startswith("checkout-")


def test_everything_of_a_directory_that_is_no_checkout(checkout):
    shutil.rmtree(checkout / ".git")
    assert packed(checkout) == [".gitignore", "secret", "tracked", "untracked"]
    assert describe_checkout(checkout).branch == "master"


def test_a_checkout_of_another_user_is_refused_with_git_s_reason(checkout, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    for call in (pack_tree, describe_checkout):
        with pytest.raises(
            BadRequestError, match=r"git does not answer for: .*dubious ownership(.|\n)*safe\.directory"
        ):
            call(checkout)


@pytest.mark.parametrize("inside", [".", "inner"])
def test_a_damaged_checkout_is_refused(checkout, inside):
    (checkout / "inner").mkdir()
    (checkout / ".git/HEAD").unlink()
    with pytest.raises(BadRequestError, match="not a git repository"):
        pack_tree(checkout / inside)


def test_a_checkout_without_git_is_refused(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadRequestError, match="git is not installed"):
        pack_tree(checkout)
    shutil.rmtree(checkout / ".git")
    assert "tracked" in packed(checkout)


def test_a_damaged_checkout_inside_another_is_refused(checkout):
    inner = checkout / "inner"
    inner.mkdir()
    git(inner, "init", "-q")
    (inner / "file").write_text("f")
    git(inner, "add", "-A")
    git(inner, "commit", "-qm", "inner")
    assert "inner/file" in packed(checkout)
    (inner / ".git/HEAD").write_text("broken")
    with pytest.raises(
        BadRequestError, match=r"inner' is a git checkout that git does not answer for: its \.git is damaged"
    ):
        pack_tree(inner)


def test_the_service_s_own_data_is_left_out(checkout):
    for name in ("deep/.agola-data", "own data"):
        (checkout / name).mkdir(parents=True)
        (checkout / name / "coordinator.db").write_text("secret")
    (checkout / "own data of others").write_text("x")
    assert packed(checkout, left_out=checkout / "own data") == [
        ".gitignore",
        "own data of others",
        "tracked",
        "untracked",
    ]


def unpacked(path, target, **options):
    unpack(pack_tree(path, include_repository=True, **options), target, overwrite=True)
    return target


def said(path, *arguments):
    done = subprocess.run(["git", "-C", path, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_checkout_comes_with_its_repository_and_its_changes_on_top(checkout, tmp_path):
    git(checkout, "tag", "-a", "v1", "-m", "one")
    (checkout / "tracked").write_text("second")
    git(checkout, "add", "tracked")
    git(checkout, "commit", "-qm", "second")
    (checkout / "tracked").write_text("changed")
    (checkout / "tracked").chmod(0o640)
    os.utime(checkout / "tracked", (1_700_000_000, 1_700_000_000))
    git(checkout, "config", "remote.origin.url", "https://user:password@example.org/x")
    (checkout / ".git/hooks").mkdir(exist_ok=True)
    (checkout / ".git/hooks/post-checkout").write_text("#!/bin/sh")
    copy = unpacked(checkout, tmp_path / "copy")
    assert said(copy, "rev-parse", "HEAD") == said(checkout, "rev-parse", "HEAD")
    assert said(copy, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert said(copy, "describe").startswith("v1-1-g")
    assert said(copy, "log", "--format=%s").split() == ["second", "first"]
    assert said(copy, "status", "--porcelain").splitlines() == ["M tracked", "?? untracked"]
    assert not (copy / "secret").exists()
    found = (copy / "tracked").stat()
    assert (found.st_mtime, stat.S_IMODE(found.st_mode)) == (1_700_000_000, 0o640)
    assert "password" not in (copy / ".git/config").read_text()
    assert not (copy / ".git/hooks").exists()
    packs = [b"".join(pack_tree(checkout, include_repository=True)) for _ in range(2)]
    assert packs[0] == packs[1]


def test_a_large_repository_comes_without_its_older_history(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(repository_copy, "MAX_BYTES", 0)
    for number in range(60):
        git(checkout, "commit", "-q", "--allow-empty", "-m", str(number))
    copy = unpacked(checkout, tmp_path / "copy")
    assert len(said(copy, "log", "--format=%s").split()) == 50
    assert said(copy, "status", "--porcelain") == "?? untracked"


def test_worktrees_detached_heads_shallow_clones_and_empty_repositories(checkout, tmp_path):
    git(checkout, "worktree", "add", "-q", "-b", "other", tmp_path / "worktree")
    assert said(unpacked(tmp_path / "worktree", tmp_path / "1"), "symbolic-ref", "HEAD") == "refs/heads/other"
    git(checkout, "checkout", "-q", "--detach")
    copy = unpacked(checkout, tmp_path / "2")
    assert said(copy, "rev-parse", "--abbrev-ref", "HEAD") == "HEAD"
    assert said(copy, "rev-parse", "HEAD") == said(checkout, "rev-parse", "HEAD")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{checkout}", tmp_path / "shallow")
    assert said(unpacked(tmp_path / "shallow", tmp_path / "3"), "status", "--porcelain") == ""
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q", "-b", "trunk")
    (tmp_path / "empty/new").write_text("n")
    copy = unpacked(tmp_path / "empty", tmp_path / "4")
    assert said(copy, "symbolic-ref", "HEAD") == "refs/heads/trunk"
    assert said(copy, "status", "--porcelain") == "?? new"
    (checkout / "inner").mkdir()
    (checkout / "inner/file").write_text("f")
    assert not (unpacked(checkout / "inner", tmp_path / "5") / ".git").exists()  # it is the checkout's


def test_a_partial_clone_comes_as_its_last_commit(checkout, tmp_path):
    git(checkout, "config", "uploadpack.allowFilter", "true")
    (checkout / "tracked").write_text("changed")
    git(checkout, "commit", "-qam", "second")
    git(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{checkout}", tmp_path / "partial")
    copy = unpacked(tmp_path / "partial", tmp_path / "copy")
    assert said(copy, "log", "--format=%s") == "second"
    assert said(copy, "status", "--porcelain") == ""


def test_a_partial_clone_without_all_of_its_last_commit_is_refused_by_name(checkout, tmp_path):
    git(checkout, "config", "uploadpack.allowFilter", "true")
    (checkout / "below").mkdir()
    (checkout / "below/file").write_text("not here")
    git(checkout, "add", "below")
    git(checkout, "commit", "-qm", "second")
    git(tmp_path, "clone", "-q", "--filter=blob:none", "--sparse", f"file://{checkout}", tmp_path / "partial")
    with pytest.raises(BadRequestError, match=r"partial clone.* lacks 1 object of its last commit.*sparse-checkout"):
        packed(tmp_path / "partial", include_repository=True)


def test_a_look_at_a_checkout_runs_no_command_of_its_configuration(checkout, tmp_path):
    ran = tmp_path / "ran"
    settings = {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::touch {ran}",
        "protocol.ext.allow": "always",
        "core.fsmonitor": f"touch {ran};",
        "core.hooksPath": str(checkout),
    }
    head = said(checkout, "rev-parse", "HEAD")
    for name, value in settings.items():
        git(checkout, "config", name, value)
    (checkout / ".git/objects" / head[:2] / head[2:]).unlink()  # git would get it from the remote
    subprocess.run(["git", "-C", checkout, "cat-file", "-e", "HEAD^{commit}"], capture_output=True, check=False)
    assert ran.exists()  # as git does by itself
    ran.unlink()
    assert "tracked" in packed(checkout, include_repository=True)
    assert describe_checkout(checkout).branch == "main"
    assert not ran.exists()


@pytest.mark.parametrize("place", [".git/config", ".gitignore", ".git/info/exclude", ".git/index", ".git/HEAD", "user"])
def test_a_named_pipe_in_place_of_a_file_that_git_reads_is_an_error(checkout, tmp_path, monkeypatch, place):
    monkeypatch.setattr(git_command, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(source, "WORK_SECONDS", 0.3)
    included = tmp_path / "included"
    if place == ".git/config":
        git(checkout, "config", "include.path", str(included))
    elif place == "user":
        (tmp_path / "user").write_text(f"[include]\npath = {included}\n")
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "user"))
    else:
        included = checkout / place
        included.unlink()
    os.mkfifo(included)
    with pytest.raises(BadRequestError, match=rf"git does not answer for '{checkout}': `git .*named pipe"):
        packed(checkout, include_repository=True)


def test_what_a_fetch_started_ends_with_it(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(repository_copy, "WORK_SECONDS", 0.3)
    blob = said(checkout, "rev-parse", "HEAD:tracked")
    waiting = checkout / ".git/objects" / blob[:2] / blob[2:]
    waiting.unlink()
    os.mkfifo(waiting)  # which the sending half of the fetch opens
    with pytest.raises(BadRequestError, match=r"took more than 0.3 s"):
        packed(checkout, include_repository=True)
    while any(is_below(process / "cwd", checkout) for process in Path("/proc").glob("[0-9]*")):
        time.sleep(0.01)  # the killed ones end one by one


def is_below(link, directory):
    try:
        return link.readlink().is_relative_to(directory)
    except OSError:  # it has ended
        return False


def test_a_submodule_that_is_not_initialised_is_an_empty_directory(checkout, tmp_path):
    git(tmp_path, "init", "-q", tmp_path / "module")
    git(tmp_path / "module", "commit", "-q", "--allow-empty", "-m", "m")
    git(checkout, "-c", "protocol.file.allow=always", "submodule", "add", "-q", tmp_path / "module", "sub")
    git(checkout, "commit", "-qm", "with a submodule")
    git(tmp_path, "clone", "-q", checkout, tmp_path / "plain")
    copy = unpacked(tmp_path / "plain", tmp_path / "copy")
    assert list((copy / "sub").iterdir()) == []
    assert said(copy, "status", "--porcelain") == ""
