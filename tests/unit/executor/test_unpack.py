"""Archives: what is packed comes back, and what is hostile stays inside."""

import io
import os
import stat
import subprocess
import tarfile

import pytest

from agola_core.errors import BadRequestError
from agola_core.executor.archives.pack import Packed
from agola_core.executor.archives.unpack import unpack
from agola_core.executor.drivers.container.files import repack
from agola_core.executor.drivers.host.accounts import acting_as, find_account
from agola_core.runservice.model.types import ArchiveContents
from agola_core.source.tree import pack_tree
from agola_core.tar_stream import Limits
from tests.support.archives import make_archive


def tar(*members):
    """Return a tar of (name, kind, content or target) members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                info.mode = 0o6755
                archive.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content
                archive.addfile(info)
    return [buffer.getvalue()]


FILE, LINK, HARD, DIR = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
HOSTILE = {
    "parent": [("../evil", FILE, b"x")],
    "parent inside": [("a/../../evil", FILE, b"x")],
    "absolute": [("/tmp/agola-evil", FILE, b"x")],
    "below a link out": [("l", LINK, ".."), ("l/evil", FILE, b"x")],
    "below an absolute link": [("l", LINK, "/tmp"), ("l/evil", FILE, b"x")],
    "through a link": [("l", LINK, "."), ("l/../../evil", FILE, b"x")],
    "below a link": [("d", DIR, ""), ("l", LINK, "d"), ("l/evil", FILE, b"x")],
    "below a late climb": [("d", LINK, "."), ("l", LINK, "d/.."), ("l/evil", FILE, b"x")],
    "link replaced by a directory": [("l", LINK, "d"), ("l", DIR, ""), ("l/x", FILE, b"x")],
    "hard link out": [("h", HARD, "../outside")],
    "absolute hard link": [("h", HARD, "/etc/passwd")],
    "character device": [("c", tarfile.CHRTYPE, "")],
    "fifo": [("p", tarfile.FIFOTYPE, "")],
    "file over a directory": [("d", DIR, ""), ("d", FILE, b"x")],
    "file as a directory": [("f", FILE, b"x"), ("f/g", FILE, b"x")],
    "too deep": [("/".join("a" * 101), FILE, b"x")],
    "the root itself": [(".", FILE, b"x")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_and_nothing_leaves_the_target(tmp_path, name):
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    target = tmp_path / "target"
    with pytest.raises(BadRequestError):
        unpack(tar(*HOSTILE[name]), target, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "target"]
    assert outside.read_text() == "untouched"
    assert outside.stat().st_nlink == 1


@pytest.mark.parametrize("limits", [Limits(files=2), Limits(size=5)])
def test_limits_hold(tmp_path, limits):
    archive = tar(*[(f"f{number}", FILE, b"xx") for number in range(3)])
    with pytest.raises(BadRequestError, match="more than"):
        unpack(archive, tmp_path, overwrite=True, limits=limits)


@pytest.mark.parametrize("cut", [1, 100, 511, 600, 1000])
def test_cut_archives_are_refused(tmp_path, cut):
    (whole,) = tar(("a", FILE, b"x" * 700))
    with pytest.raises(BadRequestError):
        unpack([whole[:cut]], tmp_path, overwrite=True)


def test_set_user_bits_are_dropped_and_links_inside_work(tmp_path):
    unpack(tar(("d/f", FILE, b"x"), ("d/l", LINK, "../d/f"), ("h", HARD, "d/f")), tmp_path, overwrite=True)
    assert stat.S_IMODE((tmp_path / "d/f").stat().st_mode) == 0o755
    assert (tmp_path / "d/l").read_bytes() == b"x"
    assert (tmp_path / "h").stat().st_nlink == 2


def test_existing_files_stay_unless_overwritten(tmp_path):
    (tmp_path / "f").write_text("old")
    unpack(tar(("f", FILE, b"new")), tmp_path, overwrite=False)
    assert (tmp_path / "f").read_text() == "old"
    unpack(tar(("f", FILE, b"new")), tmp_path, overwrite=True)
    assert (tmp_path / "f").read_text() == "new"


def test_what_is_archived_comes_back_with_modes_and_times(tmp_path):
    source = tmp_path / "source"
    (source / "dist/deep").mkdir(parents=True)
    (source / "dist/a.o").write_text("a")
    (source / "dist/deep/b ü.o").write_text("b")
    (source / "dist/deep/c.txt").write_text("c")
    (source / "dist/link").symlink_to("a.o")
    (source / "dist/a.o").chmod(0o750)
    os.utime(source / "dist/a.o", (1000, 2000))
    contents = [ArchiveContents(source_dir="dist", dest_dir="out", paths=["**/*.o", "link"])]
    assert make_archive(tmp_path / "x.tar", contents, source) == Packed(3)
    target = tmp_path / "target"
    unpack([(tmp_path / "x.tar").read_bytes()], target, overwrite=False)
    names = sorted(str(path.relative_to(target)) for path in target.rglob("*") if not path.is_dir())
    assert names == ["out/a.o", "out/deep/b ü.o", "out/link"]
    status = (target / "out/a.o").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o750, 2000)
    with pytest.raises(BadRequestError, match="does not exist"):
        make_archive(tmp_path / "y.tar", [ArchiveContents(source_dir="none", paths=["*"])], source)
    with pytest.raises(BadRequestError, match="leaves"):
        make_archive(tmp_path / "y.tar", [ArchiveContents(paths=["../*"])], source)


@pytest.fixture
def as_nobody(tmp_path):
    """Let the file system refuse what it refuses an ordinary user, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    account = find_account("nobody")
    os.chown(tmp_path, account.pw_uid, account.pw_gid)
    for path in tmp_path.parents:
        if not path.stat().st_mode & 0o001:
            path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o011)
    with acting_as(account):
        yield


def test_directories_keep_their_modes_and_a_later_archive_still_gets_into_them(tmp_path, as_nobody):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "a/closed").mkdir(parents=True)
    (source / "a/closed/f").write_text("1")
    (source / "a/closed").chmod(0o555)
    make_archive(tmp_path / "x.tar", [ArchiveContents(paths=["**"])], source)
    unpack([(tmp_path / "x.tar").read_bytes()], target, overwrite=True)
    closed = target / "a/closed"
    assert stat.S_IMODE(closed.stat().st_mode) == 0o555
    with pytest.raises(PermissionError):
        (closed / "f").unlink()
    unpack(tar(("a/closed/f", FILE, b"2"), ("a/closed/new/g", FILE, b"3")), target, overwrite=True)
    assert ((closed / "f").read_text(), (closed / "new/g").read_text()) == ("2", "3")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o555


def test_what_cannot_be_read_is_told(tmp_path, as_nobody):
    (tmp_path / "a/private").mkdir(parents=True)
    (tmp_path / "a/private").chmod(0)
    packed = make_archive(tmp_path / "x.tar", [ArchiveContents(paths=["a/**"])], tmp_path)
    assert packed == Packed(1, ("left out, the content of directories that cannot be read: 'private'",))


def test_a_sparse_file_comes_back_sparse(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    with (source / "disk").open("wb") as file:
        file.write(b"begin")
        file.seek(5_000_000)
        file.write(b"middle")
        file.truncate(9_000_001)
    make_archive(tmp_path / "x.tar", [ArchiveContents(paths=["*"])], source)
    unpack([(tmp_path / "x.tar").read_bytes()], target, overwrite=True)
    assert (target / "disk").read_bytes() == (source / "disk").read_bytes()
    assert (target / "disk").stat().st_blocks * 512 < 1_000_000


def test_a_packed_tree_is_the_same_bytes_each_time(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("x")
    (tmp_path / "run").write_text("#!/bin/sh\n")
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "l").symlink_to("d")
    (tmp_path / "empty").mkdir()
    first = b"".join(pack_tree(tmp_path))
    assert b"".join(pack_tree(tmp_path)) == first
    unpack([first], tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/d/f").read_text() == "x"
    assert os.access(tmp_path / "out/run", os.X_OK)
    assert (tmp_path / "out/l").is_symlink()
    assert (tmp_path / "out/empty").is_dir()
    with pytest.raises(BadRequestError, match="not a directory"):
        pack_tree(tmp_path / "run")


def test_a_directory_that_the_checkout_around_it_ignores_is_packed_whole(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("build\n")
    (tmp_path / "build/inner").mkdir(parents=True)
    (tmp_path / "build/inner/f").write_text("x")
    unpack(pack_tree(tmp_path / "build"), tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/inner/f").read_text() == "x"
    unpack(pack_tree(tmp_path), tmp_path / "whole", overwrite=True)
    assert (tmp_path / "whole/.gitignore").exists()
    assert not (tmp_path / "whole/build").exists()


def test_a_container_s_links_to_a_file_that_is_not_wanted_are_the_file(tmp_path):
    members = tar(("a", FILE, b"x"), ("d", DIR, ""), ("d/one", HARD, "a"), ("d/two", HARD, "a"), ("d/own", FILE, b"y"))
    archive = bytearray()
    contents = [ArchiveContents(paths=["d/**"], dest_dir="to")]
    assert repack(archive.extend, contents, "/", lambda _: iter(members)).count == 3
    unpack([bytes(archive)], tmp_path, overwrite=True)
    found = tmp_path / "to/d"
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {"one": b"x", "two": b"x", "own": b"y"}
    assert (found / "one").samefile(found / "two")


def test_a_file_that_is_deleted_before_it_is_read_is_no_target_of_links(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("x")
    for name in "bc":
        (source / name).hardlink_to(source / "a")
    opened = os.open

    def delete_first(path, *arguments, **named):
        if path == "a":
            (source / "a").unlink()
        return opened(path, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", delete_first)
        assert make_archive(tmp_path / "x.tar", [ArchiveContents(paths=["**"])], source) == Packed(2)
    unpack([(tmp_path / "x.tar").read_bytes()], tmp_path / "target", overwrite=True)
    assert [(tmp_path / "target" / name).read_text() for name in "bc"] == ["x", "x"]
