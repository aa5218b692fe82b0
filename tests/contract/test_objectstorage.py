"""What every object storage does: the second half of `agola_core.objectstorage.port`."""

import contextlib
import itertools
import threading
import uuid

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agola_core.errors import BadRequestError, ConflictError, NotFoundError
from agola_core.objectstorage import is_portable, open_storage
from agola_core.objectstorage.filesystem import StorageFileSystem
from agola_core.objectstorage.port import MAX_COMPONENT_BYTES
from agola_core.objectstorage.posix.flat_names import decode_flat, encode_flat
from agola_pytest.fixtures import require
from agola_pytest.servers.s3 import S3MissingError, S3Program, missing_reason, start_s3
from tests.simulation.memory_storage import Bucket, MemoryStorage
from tests.support import clouds

CLOUDS = [scheme for scheme in clouds.SCHEMES if clouds.program(scheme)]
EXTERNAL = [] if missing_reason(S3Program.EXTERNAL) else ["s3-external"]
S3 = ["s3-ministack", "s3-rclone", *EXTERNAL]
GIVEN = ["fsspec-memory", "fsspec-local"]
BACKENDS = ["posix", "posixflat", "memory", *S3, *CLOUDS, *GIVEN]
NOT_RCLONE = [kind for kind in BACKENDS if kind != "s3-rclone"]  # it keeps keys as paths, and ignores conditions
PORTABLE_ONLY = {"posix", "s3-external", *CLOUDS, *GIVEN}  # some servers refuse some keys
PLAIN = [kind for kind in NOT_RCLONE if kind not in PORTABLE_ONLY]
PORTABLE_KEYS = [
    "a",
    "a-b",
    "a/b",
    "a/c/d",
    "b.f",
    "12345678",
    "123456789",
    "ü/日本 x",
    "100%/%2F",
    "x" * 255,
    "é" * 100,
]


numbers = itertools.count()


@pytest.fixture(scope="session")
def s3_server(request, tmp_path_factory, pytestconfig):
    """Return a function that starts each kind of S3 server once and returns its storages' URLs."""
    with contextlib.ExitStack() as stack:
        running = {}

        def url(name):
            if name not in running:
                program = S3Program(name)
                if program is S3Program.EXTERNAL:
                    running[name] = request.getfixturevalue("agola_session_s3")
                    return url(name)
                try:
                    running[name] = stack.enter_context(start_s3(tmp_path_factory.mktemp(name), program))
                except S3MissingError as error:
                    require.missing(pytestconfig, "s3", str(error))
            return running[name].url(f"{uuid.uuid4().hex}/storage {next(numbers)}", part_size=5 * 1024 * 1024)

        yield url


@pytest.fixture(scope="session")
def cloud_server(tmp_path_factory):
    """Return a function that starts each cloud once and returns its storages' URLs."""
    with contextlib.ExitStack() as stack:
        running = {}

        def url(scheme):
            if scheme not in running:
                running[scheme] = stack.enter_context(clouds.start_cloud(scheme, tmp_path_factory.mktemp(scheme)))
            return running[scheme](f"{uuid.uuid4().hex}/storage {next(numbers)}")

        yield url


@pytest.fixture
def open_kind(request, tmp_path):
    """Return a function that opens a new storage of a kind."""
    with contextlib.ExitStack() as stack:

        def open_one(kind):
            if kind.startswith("s3-"):
                url = request.getfixturevalue("s3_server")(kind.removeprefix("s3-"))
            elif kind in CLOUDS:
                url = request.getfixturevalue("cloud_server")(kind)
            elif kind == "memory":
                return MemoryStorage(Bucket())
            elif kind in GIVEN:
                files = fsspec.filesystem(kind.removeprefix("fsspec-"))
                root = f"{tmp_path}/root{next(numbers)}"
                return stack.enter_context(contextlib.closing(open_storage(files, root)))
            else:
                url = f"{kind}://{tmp_path}/root{next(numbers)}"
            return stack.enter_context(contextlib.closing(open_storage(url)))

        yield open_one


@pytest.fixture(params=BACKENDS)
def storage(request, open_kind):
    return open_kind(request.param)


def keys(storage, *args, **options):
    return [info.path for info in storage.list(*args, **options)]


@pytest.mark.parametrize("key", PORTABLE_KEYS)
def test_what_is_written_is_read(storage, key, request):
    if key == "a":
        key = "alone"
    assert is_portable(key)
    assert storage.write(key, b"one") == 3
    if request.node.callspec.params["storage"] == "s3-external" and len(key) == MAX_COMPONENT_BYTES:
        try:
            storage.write(key, b"two")
        except BadRequestError:
            pytest.skip("the server replaces no object whose component is as long as a file's name may be")
    assert storage.write(key, [b"tw", b"", b"o and more"]) == 12
    assert storage.read(key) == b"two and more"
    assert storage.read(key, 4, 3) == b"and"
    assert storage.read(key, 8) == b"more"
    assert storage.read(key, 100) == storage.read(key, 100, 5) == b""
    assert b"".join(storage.open_stream(key, 5)) == b"two and more"
    reader = storage.open_reader(key)
    assert reader.read(4, 3) == b"and"
    reader.close()
    info = storage.stat(key)
    assert (info.path, info.size) == (key, 12)
    assert info.modified.tzinfo is not None
    assert keys(storage) == [key]
    storage.delete(key)
    assert keys(storage) == []


def test_an_empty_object_is_an_object(storage):
    storage.write("empty", b"")
    assert storage.read("empty") == b""
    assert storage.stat("empty").size == 0


def test_missing_objects_are_not_found(storage):
    storage.write("there/x", b"")
    for key in ("none", "there", "there/x/y", "there/none"):
        for use in (storage.read, storage.stat, storage.delete, storage.open_stream):
            with pytest.raises(NotFoundError):
                use(key)
        with pytest.raises(NotFoundError):
            storage.open_reader(key).read(0, 1)


@pytest.mark.parametrize("error", [RuntimeError, FileNotFoundError, NotADirectoryError, ConnectionResetError, OSError])
def test_a_failing_source_changes_nothing_and_is_told_as_it_is(storage, error):
    """A source that is a file or a connection of its own: its errors are none of the storage."""
    raised = error(5, "of the source")

    def failing():
        yield b"half"
        raise raised

    storage.write("old", b"old")
    for key in ("old", "new"):
        with pytest.raises(error) as caught:
            storage.write(key, failing())
        assert caught.value is raised
    assert storage.read("old") == b"old"
    assert keys(storage) == ["old"]


@pytest.mark.parametrize("storage", NOT_RCLONE, indirect=True)
def test_if_absent_has_one_winner(storage):
    outcomes = []
    barrier = threading.Barrier(8)

    def write(number):
        barrier.wait()
        try:
            storage.write("key", b"%d" % number, if_absent=True)
            outcomes.append(number)
        except ConflictError:
            pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert storage.read("key") == b"%d" % outcomes[0]
    assert len(outcomes) == 1


def test_if_absent_refuses_to_replace(storage):
    storage.write("key", b"old")
    with pytest.raises(ConflictError):
        storage.write("key", b"new", if_absent=True)
    assert storage.read("key") == b"old"


def test_readers_see_whole_objects_while_writers_replace_them(storage):
    storage.write("key", b"a" * 100_000)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for letter in (b"a", b"b"):
                storage.write("key", letter * 100_000)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(50):
            assert set(storage.read("key")) in ({97}, {98})
            assert len(set(b"".join(storage.open_stream("key", 1000)))) == 1
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("storage", NOT_RCLONE, indirect=True)
def test_writers_and_deleters_of_one_directory_do_not_disturb_each_other(storage):
    def churn(number):
        for _ in range(20):
            storage.write(f"deep/er/{number}", b"x")
            storage.delete(f"deep/er/{number}")

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert keys(storage) == []
    storage.write("deep/er/last", b"")
    assert keys(storage) == ["deep/er/last"]


def test_lists_have_s3_semantics(storage):
    for key in ("a-b", "a/b", "a/c/d", "a/c/e", "ab", "b/x"):
        storage.write(key, b"")
    assert keys(storage) == ["a-b", "a/b", "a/c/d", "a/c/e", "ab", "b/x"]
    assert keys(storage, "a") == ["a-b", "a/b", "a/c/d", "a/c/e", "ab"]
    assert keys(storage, "a/") == ["a/b", "a/c/d", "a/c/e"]
    assert keys(storage, "a/c/d") == ["a/c/d"]
    assert keys(storage, "none/") == []
    assert keys(storage, recursive=False) == ["a-b", "a/", "ab", "b/"]
    assert keys(storage, "a/", recursive=False) == ["a/b", "a/c/"]
    assert keys(storage, "a", recursive=False) == ["a-b", "a/", "ab"]
    assert keys(storage, start_after="a/b") == ["a/c/d", "a/c/e", "ab", "b/x"]
    assert keys(storage, "a/", start_after="a/c/d") == ["a/c/e"]
    assert keys(storage, start_after="a/", recursive=False) == ["ab", "b/"]


@pytest.mark.parametrize("place", [{"prefix": "z\udcff"}, {"start_after": "\ud800"}], ids=list)
def test_lists_refuse_what_is_not_valid_unicode(storage, place):
    storage.write("key", b"")
    for recursive in (True, False):
        with pytest.raises(BadRequestError, match="not valid Unicode"):
            list(storage.list(**place, recursive=recursive))


components = st.text(st.sampled_from("ab.%é-"), min_size=1, max_size=10).filter(lambda text: text not in {".", ".."})
portable = st.lists(components, min_size=1, max_size=3).map("/".join)


@settings(max_examples=60, deadline=None)
@given(st.sets(portable, max_size=12), portable, portable, st.booleans(), st.data())
def test_local_lists_equal_a_sorted_set(tmp_path_factory, kind_names, prefix, start_after, recursive, data):
    kind = data.draw(st.sampled_from(["posix", "posixflat"]))
    storage = open_storage(f"{kind}://{tmp_path_factory.mktemp('list')}")
    stored = set()
    for key in sorted(kind_names):
        if kind == "posix" and any(key.startswith(f"{other}/") or other.startswith(f"{key}/") for other in stored):
            continue
        storage.write(key, b"")
        stored.add(key)
    cut = data.draw(st.integers(0, len(prefix)))
    prefix = prefix[:cut]
    expected = set()
    for key in stored:
        if key.startswith(prefix):
            rest = key[len(prefix) :]
            expected.add(key if recursive or "/" not in rest else prefix + rest.split("/")[0] + "/")
    wanted = sorted((key for key in expected if key > start_after), key=str.encode)
    assert keys(storage, prefix, start_after=start_after, recursive=recursive) == wanted


@pytest.mark.parametrize("key", ["", "/", "/a", "a/", "a//b", ".", "..", "../x", "a/../../x", "a/.", "x" * 256, "a\0b"])
def test_posix_refuses_what_a_tree_cannot_hold(tmp_path, key):
    storage = open_storage(tmp_path / "root")
    for use in (lambda: storage.write(key, b""), lambda: storage.read(key), lambda: storage.delete(key)):
        with pytest.raises(BadRequestError, match="object key"):
            use()
    assert not is_portable(key)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "root", "tmp"]


def test_posix_refuses_a_key_below_or_above_another(tmp_path):
    storage = open_storage(tmp_path)
    storage.write("a/b", b"")
    with pytest.raises(BadRequestError, match="directory"):
        storage.write("a", b"")


PLAIN_TEXT = ["a//b", "a/", "..", ".", "../../x", "/", "//", "a\0b", "12345678..", "1234567/..", "%2E", "?a#b&c=d+e"]


@pytest.mark.parametrize("storage", PLAIN, indirect=True)
def test_any_key_is_plain_text(storage, tmp_path):
    for key in PLAIN_TEXT:
        storage.write(key, key.encode())
        storage.write(key + "x", b"")
        assert storage.read(key) == key.encode()
    everything = sorted([*PLAIN_TEXT, *(key + "x" for key in PLAIN_TEXT)])
    assert keys(storage) == everything
    assert keys(storage, "../") == [key for key in everything if key.startswith("../")]
    for key in PLAIN_TEXT:
        storage.delete(key)
    assert keys(storage) == sorted(key + "x" for key in PLAIN_TEXT)
    assert len(list(tmp_path.iterdir())) <= 1  # nothing left the root


@pytest.mark.parametrize("storage", [*S3, *CLOUDS], indirect=True)
def test_large_objects_go_in_parts(storage):
    pieces = [bytes([number]) * 700_000 for number in range(20)]  # nearly three parts of 5 MiB
    whole = b"".join(pieces)
    assert storage.write("large", iter(pieces)) == len(whole)
    assert storage.read("large") == whole
    assert b"".join(storage.open_stream("large")) == whole
    assert storage.read("large", 5 * 2**20 - 3, 6) == whole[5 * 2**20 - 3 : 5 * 2**20 + 3]
    assert storage.stat("large").size == len(whole)

    def failing():
        yield from pieces
        raise RuntimeError

    with pytest.raises(RuntimeError):
        storage.write("failed", failing())
    assert keys(storage) == ["large"]


@pytest.mark.parametrize("storage", [*S3, *CLOUDS], indirect=True)
def test_long_lists_come_in_pages(storage):
    threads = [
        threading.Thread(target=lambda part=part: [storage.write(f"{part}/{n:03}", b"") for n in range(130)])
        for part in "abcdefgh"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [f"{part}/{n:03}" for part in "abcdefgh" for n in range(130)]
    assert keys(storage) == everything
    assert keys(storage, start_after="c/050") == [key for key in everything if key > "c/050"]
    assert keys(storage, recursive=False) == [f"{part}/" for part in "abcdefgh"]


def test_posixflat_names_are_agolas():
    assert encode_flat("a/b") == "a%2Fb"
    assert encode_flat("12345678") == "12345678.f"
    assert encode_flat("123456789") == "12345678/9"


@given(st.text(min_size=1, max_size=40))
def test_posixflat_names_decode_to_their_keys(key):
    assert decode_flat(encode_flat(key)) == key


def test_the_factory_names_what_it_does_not_know(tmp_path):
    with pytest.raises(BadRequestError, match="ftp://"):
        open_storage("ftp://x")
    with pytest.raises(BadRequestError, match="configure"):
        open_storage(f"posixflat://{tmp_path}", configured=True)


def test_every_storage_is_an_fsspec_file_system(storage, tmp_path):
    files = StorageFileSystem(storage)
    files.pipe({"a/one": b"1", "a/b/two": b"22", "top": b"x" * 100})
    with files.open("a/three", "wb") as file:
        file.write(b"3" * 70_000)
        assert not files.exists("a/three")  # as a whole, when it is closed
    assert files.find("") == ["a/b/two", "a/one", "a/three", "top"]
    assert sorted(files.ls("a", detail=False)) == ["a/b", "a/one", "a/three"]
    assert files.isdir("a/b")
    assert files.isfile("a/one")
    assert files.glob("a/*e") == ["a/one", "a/three"]
    assert files.cat_file("top", 2, 5) == files.cat_file("top", -3) == b"xxx"
    with files.open("a/three") as file:
        file.seek(69_990)
        assert file.read(100) == b"3" * 10
    files.get("a/", str(tmp_path / "copy/"), recursive=True)
    assert (tmp_path / "copy/b/two").read_bytes() == b"22"
    files.mv("top", "moved")
    files.rm("a", recursive=True)
    assert files.find("") == ["moved"]
    for use in (files.cat_file, files.info, files.rm_file):
        with pytest.raises(FileNotFoundError):
            use("none")
