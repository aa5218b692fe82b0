"""What of a directory goes to a run: nothing that git ignores, and nothing at all when git cannot tell."""

import io
import shutil
import subprocess
import tarfile

import pytest

from agola_cli.runs.checkout import describe_checkout
from agola_core.compression import open_zstd
from agola_core.errors import BadRequestError
from agola_core.source import pack_tree


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
