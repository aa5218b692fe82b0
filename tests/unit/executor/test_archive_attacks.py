"""Archives made to get out, to break in, or to use everything up; and any bytes at all."""

import contextlib
import fnmatch
import os
import stat
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agola_core.encoding.compression import compress
from agola_core.errors import BadRequestError
from agola_core.executor.archives.globs import compile_globs
from agola_core.executor.archives.unpack import unpack
from agola_core.runservice.model.types import ArchiveContents
from agola_core.tar_stream import Limits, read_members
from tests.support.archives import make_archive

FILE, LINK, HARD, DIR = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
BLOCK = tarfile.BLOCKSIZE


def member(name, kind=FILE, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, fields.pop("mode", 0o644)
    if kind in {LINK, HARD}:
        info.linkname = content
    else:
        info.size = fields.pop("size", len(content))
    for field, value in fields.items():
        setattr(info, field, value)
    padding = bytes(-len(content) % BLOCK) if kind == FILE else b""
    return info.tobuf(tarfile.PAX_FORMAT) + (content + padding if kind == FILE else b"")


def archive(*members, end=bytes(2 * BLOCK)):
    return [b"".join(members) + end]


def deep_links():
    """The shape of CVE-2025-4517: short names that resolve to a long path, past what a checker resolves."""
    long = "d" * 247
    members, path = [], ""
    for letter in "abcdefghijklmnop":
        members += [member(f"{path}{long}", DIR), member(f"{path}{letter}", LINK, long)]
        path += f"{letter}/"
    link = path + "l" * 254
    return [*members, member(link, LINK, "../" * 16), member("escape", LINK, f"{link}/../../../etc")]


ATTACKS = {
    "links past the longest path": [*deep_links(), member("escape/x", FILE, b"x")],
    "a link over a link (CVE-2025-4330)": [member("a", LINK, "b"), member("b", LINK, ".."), member("a/x", FILE, b"x")],
    "a directory turned into a link": [member("d", DIR), member("d", LINK, ".."), member("d/x", FILE, b"x")],
    "a hard link to a link out": [member("s", LINK, "../outside"), member("h", HARD, "s")],
    "a hard link through a link": [member("s", LINK, "."), member("h", HARD, "s/../outside")],
    "a hard link to what is not there": [member("h", HARD, "none")],
    "a hard link to the root": [member("h", HARD, ".")],
    "a hard link to a directory": [member("d", DIR), member("h", HARD, "d")],
    "an empty link": [member("l", LINK, "")],
    "a name with a NUL": [member("a", pax_headers={"path": "a\0/../../x"})],
    "a name that is too long": [member("a" * 256, FILE, b"x")],
    "a negative size": [member("a", size=-512)],
    "a sparse file": [member("a", tarfile.GNUTYPE_SPARSE)],
    "a sparse file by its header": [
        member("a", FILE, b"x" * 512, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
    ],
    "a contiguous device": [member("a", tarfile.BLKTYPE)],
    "an unknown kind": [member("a", b"Z")],
    "a huge extension header": [tarfile.TarInfo("x").tobuf()[:0] + member("x", tarfile.XHDTYPE, size=1 << 40)],
    "a huge long name": [member("x", tarfile.GNUTYPE_LONGNAME, size=1 << 33)],
    "many extension headers": [member("x", tarfile.XHDTYPE, size=512) + b"9 a=bcd\n\n" + bytes(503)] * 2000,
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("packed", [False, True])
def test_an_attack_is_refused_and_nothing_leaves_the_target(tmp_path, name, packed):
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    target = tmp_path / "a/target"
    pieces = archive(*ATTACKS[name])
    with pytest.raises(BadRequestError):
        unpack([compress(pieces[0], 1)] if packed else pieces, target, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "outside"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["target"]
    assert (outside.read_text(), outside.stat().st_nlink) == ("untouched", 1)


def test_a_link_that_is_there_already_is_not_followed(tmp_path):
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    target.mkdir()
    (target / "d").symlink_to(outside)
    (target / "f").symlink_to(outside / "f")
    with pytest.raises(BadRequestError, match="no directory"):
        unpack(archive(member("d/x", FILE, b"x")), target, overwrite=True)
    unpack(archive(member("f", FILE, b"x")), target, overwrite=False)
    unpack(archive(member("f", FILE, b"x")), target, overwrite=True)
    assert (target / "f").read_bytes() == b"x"
    assert list(outside.iterdir()) == []


def test_the_target_keeps_its_own_mode_and_times(tmp_path):
    target = tmp_path / "t"
    target.mkdir(mode=0o700)
    unpack(archive(member("./", DIR, mode=0o777), member("d", DIR, mode=0o7555, mtime=1000)), target, overwrite=True)
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o1555
    assert (target / "d").stat().st_mtime == 1000


@pytest.mark.parametrize("mtime", ["1e400", "nan", "-1", "99999999999999999999"])
def test_times_that_no_file_system_has(tmp_path, mtime):
    unpack(archive(member("f", FILE, b"x", pax_headers={"mtime": mtime})), tmp_path, overwrite=True)
    assert (tmp_path / "f").stat().st_mtime == 0


def test_a_bomb_is_stopped_long_before_its_end(tmp_path):
    zeros = bytes(1 << 20)
    head = member("bomb", size=1 << 33)
    with pytest.raises(BadRequestError, match="times its size"):
        unpack([compress(head + zeros * 80, 19)], tmp_path, overwrite=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b""],
        archive(member("a", FILE, b"x"), end=b""),
        archive(member("a", FILE, b"x"), end=bytes(100)),
        archive(member("a", FILE, b"x"), b"\x01" * BLOCK, member("b", FILE, b"y")),
    ],
)
def test_a_damaged_or_cut_archive_is_an_error(tmp_path, pieces):
    with pytest.raises(BadRequestError, match=r"intact|cut short"):
        unpack(pieces, tmp_path, overwrite=True)


def test_a_file_that_is_cut_is_not_left_behind(tmp_path):
    (whole,) = archive(member("a", FILE, b"x" * 5000))
    with pytest.raises(BadRequestError):
        unpack([whole[:2000]], tmp_path, overwrite=False)
    assert list(tmp_path.iterdir()) == []
    unpack([whole], tmp_path, overwrite=False)
    assert (tmp_path / "a").stat().st_size == 5000


def test_links_that_lead_out_stay_links_and_are_not_followed(tmp_path):
    """As tools make them every day: a Python environment's `bin/python` is absolute."""
    source, outside = tmp_path / "s", tmp_path / "outside"
    outside.write_text("untouched")
    source.mkdir()
    (source / "absolute").symlink_to(outside)
    (source / "climbing").symlink_to("../outside")
    os.mkfifo(source / "pipe")
    (source / "in").symlink_to("pipe")
    everything = [ArchiveContents(source_dir=".", paths=["**"])]
    assert make_archive(tmp_path / "x.tar", everything, source).count == 3
    for _ in range(2):  # what is there is replaced, and not what it points to
        unpack([(tmp_path / "x.tar").read_bytes()], tmp_path / "t", overwrite=True)
    links = {path.name: str(path.readlink()) for path in (tmp_path / "t").iterdir()}
    assert links == {"absolute": str(outside), "climbing": "../outside", "in": "pipe"}
    unpack(archive(member("absolute", FILE, b"x")), tmp_path / "t", overwrite=True)
    assert (tmp_path / "t/absolute").read_text() == "x"
    assert outside.read_text() == "untouched"


@pytest.mark.parametrize("target", ["..", "/", "/tmp", "d"])
def test_nothing_in_an_archive_lies_below_its_links(target):
    attack = archive(member("d", DIR), member("l", LINK, target), member("l/x", FILE, b"x"))
    with pytest.raises(BadRequestError, match="below something that is no directory"):
        list(read_members(attack))  # before any driver takes it
    with pytest.raises(BadRequestError, match="below something that is no directory"):
        list(read_members(archive(member("l", LINK, target), member("h", HARD, "l/passwd"))))


def test_links_of_files_stay_links(tmp_path):
    source = tmp_path / "s"
    source.mkdir()
    (source / "a").write_text("x" * 1000)
    (source / "b").hardlink_to(source / "a")
    make_archive(tmp_path / "x.tar", [ArchiveContents(paths=["**"], dest_dir="d")], source)
    assert unpack([(tmp_path / "x.tar").read_bytes()], tmp_path / "t", overwrite=True) == 2
    assert (tmp_path / "t/d/b").stat().st_nlink == 2


names = st.lists(st.sampled_from(["a", "b", "..", ".", "", "c" * 300]), max_size=5).map("/".join)
kinds = st.sampled_from([FILE, LINK, HARD, DIR, tarfile.FIFOTYPE, tarfile.CHRTYPE])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(names, kinds, names), max_size=8), st.booleans())
def test_no_archive_gets_out(tmp_path_factory, members, overwrite):
    root = tmp_path_factory.mktemp("any")
    (root / "outside").write_text("untouched")
    made = [member(name or "x", kind, target if kind in {LINK, HARD} else b"") for name, kind, target in members]
    with contextlib.suppress(BadRequestError):
        unpack(archive(*made), root / "in/target", overwrite=overwrite)
    assert sorted(path.name for path in root.iterdir()) == ["in", "outside"]
    assert [path.name for path in (root / "in").iterdir()] == ["target"]
    assert (root / "outside").stat().st_nlink == 1
    for path in (root / "in/target").rglob("*"):
        assert path.is_symlink() or path.is_dir() or path.is_file()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_are_an_archive_or_an_error(data):
    (whole,) = archive(member("a", FILE, b"x" * 700), member("l", LINK, "a"), member("ü" * 60, DIR))
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    try:
        for found in read_members([bytes(damaged)], Limits(files=50)):
            if found.info.isreg():
                for _ in found.pieces():
                    pass
    except BadRequestError:
        pass


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.o", ["a.o", ".o"], ["d/a.o", "a.ob"]),
        ("**/*.o", ["a.o", "d/a.o", "d/e/a.o"], ["a.c"]),
        ("d", ["d"], ["d/a", "e/d"]),
        ("d/**", ["d/a", "d/e/f"], ["e/a"]),
        ("./d/*", ["d/a"], ["d/e/f"]),
        ("**", ["a", "d/a", ".hidden"], []),
        ("a?c/[bx-z]", ["abc/b", "a.c/y"], ["a/c/b", "abc/w"]),
        ("[!a]b", ["xb"], ["ab", "/b"]),
        ("\\*", ["*"], ["a"]),
    ],
)
def test_globs(pattern, matching, others):
    found = compile_globs([pattern])
    assert [path for path in matching if not found.fullmatch(path)] == []
    assert [path for path in others if found.fullmatch(path)] == []


def names(pattern, path):
    """Whether a pattern of `*`, `?` and `**` names a path, by trying everything."""
    if not pattern or not path:
        return not pattern and not path
    if pattern[0] == "**":
        return len(pattern) == 1 or names(pattern[1:], path) or names(pattern, path[1:])
    return fnmatch.fnmatchcase(path[0], pattern[0]) and names(pattern[1:], path[1:])


component = st.text(st.sampled_from("aab*?"), min_size=1, max_size=5).filter(lambda text: text != "**")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(component | st.just("**"), min_size=1, max_size=5),
    st.lists(st.text(st.sampled_from("aab"), min_size=1, max_size=4), min_size=1, max_size=5),
)
def test_a_glob_names_what_trying_everything_finds(pattern, path):
    found = compile_globs(["/".join(pattern)]).fullmatch("/".join(path))
    assert bool(found) == names(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("**/" * 200 + "x", "a/" * 2000 + "a"),
        ("**/*/" * 100 + "x", "a/" * 1000 + "a"),
        ("*a" * 200 + "b", "a" * 4000),
        ("**/*a*a/" * 100 + "x", "aaa/" * 1000 + "a"),
    ],
)
def test_a_glob_of_many_stars_is_soon_done(pattern, path):
    """Trying every place for every star would take longer than the world will last."""
    assert not compile_globs([pattern]).fullmatch(path)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab/*?[]!-^\\.{}()|+$"), max_size=12))
def test_any_glob_is_one_or_an_error(pattern):
    with contextlib.suppress(BadRequestError):
        compile_globs([pattern])
