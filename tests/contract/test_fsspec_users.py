"""What fsspec's users do with a storage: the registered protocols, pandas, pyarrow, dask and zarr."""

import pickle
import uuid

import fsspec
import pytest

from agola_core.objectstorage.filesystem import AgolaFileSystem


@pytest.fixture(params=["directory", "s3"])
def place(request, tmp_path):
    """Return the beginning of URLs and the options of fsspec's calls, for a storage in a directory and in a bucket."""
    if request.param == "directory":
        return lambda path: f"agola://{path}", {"storage": str(tmp_path / "store")}
    server = request.getfixturevalue("agola_session_s3")
    url = server.url(uuid.uuid4().hex)
    fsspec.filesystem("agola", storage=url)  # makes the bucket
    where, _, options = url.partition("?")
    return lambda path: f"agola+{where}/{path}?{options}", {}


@pytest.fixture(autouse=True)
def _fresh():
    yield
    AgolaFileSystem.clear_instance_cache()


def test_the_protocols_are_registered(place):
    url, options = place
    with fsspec.open(url("a/b.txt"), "w", **options) as file:
        file.write("text")
    with fsspec.open(url("a/b.txt"), **options) as file:
        assert file.read() == b"text"
    with pytest.raises(FileNotFoundError), fsspec.open(url("none"), **options) as file:
        file.read()
    fs, path = fsspec.url_to_fs(url("a"), **options)
    assert [found.rpartition("/")[2] for found in fs.ls(path, detail=False)] == ["b.txt"]
    again = pickle.loads(pickle.dumps(fs))
    assert again.cat(f"{path}/b.txt") == b"text"
    files = fsspec.open_files(url("a/*.txt"), **options)
    assert len(files) == 1


def test_what_cannot_be_opened_is_an_oserror():
    with pytest.raises(OSError, match="no option 'canary'"):
        fsspec.filesystem("agola", storage="s3://bucket?canary=1")
    assert fsspec.get_filesystem_class("agola+gs").scheme == "gs"
    assert fsspec.get_filesystem_class("agola+az").scheme == "az"


def test_pandas(place):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    url, options = place
    frame = pandas.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    frame.to_csv(url("f.csv"), index=False, storage_options=options or None)
    frame.to_parquet(url("f.parquet"), storage_options=options or None)
    assert pandas.read_csv(url("f.csv"), storage_options=options or None).equals(frame)
    assert pandas.read_parquet(url("f.parquet"), storage_options=options or None).equals(frame)


def test_pyarrow(place):
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    import pyarrow.dataset
    import pyarrow.fs

    url, options = place
    fs, root = fsspec.url_to_fs(url("root"), **options)
    arrow = pa.fs.PyFileSystem(pa.fs.FSSpecHandler(fs))
    table = pa.table({"n": [1, 2, 3, 4], "part": ["a", "a", "b", "b"]})
    pa.dataset.write_dataset(table, f"{root}/set", format="parquet", partitioning=["part"], filesystem=arrow)
    assert pa.dataset.dataset(f"{root}/set", filesystem=arrow, partitioning=["part"]).count_rows() == 4
    for piece in (b"one", b"two"):
        with arrow.open_append_stream(f"{root}/log") as stream:
            stream.write(piece)
    assert fs.cat(f"{root}/log") == b"onetwo"
    arrow.move(f"{root}/log", f"{root}/moved")
    arrow.delete_dir(f"{root}/set")
    assert [info.path for info in arrow.get_file_info(pa.fs.FileSelector(root, recursive=True))] == [f"{root}/moved"]


def test_dask(place):
    pytest.importorskip("dask")
    import dask.bytes

    url, options = place
    with fsspec.open(url("lines.txt"), "wb", **options) as file:
        file.write(b"line\n" * 1000)
    _, blocks = dask.bytes.read_bytes(url("lines.txt"), blocksize=1000, delimiter=b"\n", **options)
    assert b"".join(dask.compute(*blocks[0], scheduler="processes")) == b"line\n" * 1000


def test_zarr(place):
    zarr = pytest.importorskip("zarr")
    import numpy

    url, options = place
    numbers = numpy.arange(10_000).reshape(100, 100)
    array = zarr.create_array(url("array.zarr"), data=numbers, chunks=(10, 100), storage_options=options or None)
    assert (array[:] == numbers).all()
    again = zarr.open_array(url("array.zarr"), mode="r", storage_options=options or None)
    assert (again[42] == numbers[42]).all()
