"""Archives in files, made as tasks make them."""

from agola_core.executor.archives.pack import write_archive


def make_archive(target, contents, source):
    """Write an archive of the selected files of a directory; return what it has."""
    with target.open("wb") as file:
        return write_archive(file.write, contents, source)
