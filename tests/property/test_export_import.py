"""Arbitrary stores come back from their exports; whatever is done to an export, it is refused or means the same."""

import contextlib
import io
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import agola_core
from agola_core import BadRequestError, Delete, Options, Put
from agola_core.datamanager import Compression, ExportFormat
from agola_core.datamanager.transfer.export_reader import ExportReader

TYPES = ["one", "one.more", "two"]
OPTIONS = Options(background=False, inline_limit=40, block_size=60, file_size=200, max_wal_bytes=1 << 20)
SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck))

ids = st.text(min_size=1, max_size=12) | st.sampled_from(["a", 'a"}', "\0", "é", "\u2028<&>", "z" * 200])
payloads = st.binary(max_size=40) | st.sampled_from([b"", b"\xff" * 3000])
actions = st.builds(Put, st.sampled_from(TYPES), ids, payloads) | st.builds(Delete, st.sampled_from(TYPES), ids)
steps = st.lists(st.lists(actions, min_size=1, max_size=6) | st.just("checkpoint"), max_size=8)


@contextlib.contextmanager
def a_store():
    with (
        tempfile.TemporaryDirectory() as directory,
        agola_core.open(Path(directory), data_types=TYPES, options=OPTIONS) as dm,
    ):
        yield dm


def fill(dm, history):
    model = {name: {} for name in TYPES}
    for step in history:
        if step == "checkpoint":
            dm.checkpoint(force=True)
            continue
        dm.write_wal(step)
        for action in step:
            if isinstance(action, Put):
                model[action.data_type][action.id] = action.data
            else:
                model[action.data_type].pop(action.id, None)
    return model


def contents(dm):
    return {name: dict(dm.list_objects(name)) for name in TYPES}


def exported(dm, form, compression=Compression.NONE):
    file = io.BytesIO()
    dm.export(file, form, compression=compression)
    return file.getvalue()


@given(steps, st.sampled_from(ExportFormat), st.sampled_from(Compression))
@settings(SETTINGS, max_examples=15)
def test_export_import_export_is_byte_identical(history, form, compression):
    with a_store() as one, a_store() as two:
        model = fill(one, history)
        stream = exported(one, form, compression)
        two.write_wal([Put("two", "gone", b"")])
        if form is ExportFormat.AGOLA and not any(model.values()):
            return  # Agola's format has no way to say "nothing", and refuses it
        result = two.import_(io.BytesIO(stream))
        assert contents(two) == contents(one) == model
        assert result.entries == {name: len(objects) for name, objects in model.items() if objects}
        assert exported(two, form, compression) == stream
        assert two.verify() == []


@st.composite
def mutations(draw):
    """Return a function that changes a stream of bytes."""
    kind = draw(st.sampled_from(["flip", "cut", "drop", "double", "swap", "insert", "splice"]))
    place, other = draw(st.floats(0, 1)), draw(st.floats(0, 1))
    bit, junk = draw(st.integers(0, 7)), draw(st.binary(min_size=1, max_size=5) | st.just(b"\n"))

    def change(stream):
        at = int(place * max(0, len(stream) - 1))
        lines = stream.splitlines(keepends=True)
        line, second = int(place * (len(lines) - 1)), int(other * (len(lines) - 1))
        match kind:
            case "flip":
                return stream[:at] + bytes([stream[at] ^ 1 << bit]) + stream[at + 1 :]
            case "cut":
                return stream[:at]
            case "insert":
                return stream[:at] + junk + stream[at:]
            case "splice":
                return stream[:at] + stream[int(other * len(stream)) :]
            case "drop":
                return b"".join(lines[:line] + lines[line + 1 :])
            case "double":
                return b"".join(lines[: line + 1] + lines[line:])
        lines[line], lines[second] = lines[second], lines[line]
        return b"".join(lines)

    return change


@given(steps, st.sampled_from(Compression), st.lists(mutations(), min_size=1, max_size=3))
@settings(SETTINGS, max_examples=40)
def test_a_mutated_native_export_is_refused_or_equal(history, compression, changes):
    with a_store() as one, a_store() as two:
        model = fill(one, history)
        stream = changed = exported(one, ExportFormat.NATIVE, compression)
        for change in changes:
            changed = change(changed) if changed else changed
        two.write_wal([Put("two", "kept", b"1")])
        before = contents(two)
        try:
            two.import_(io.BytesIO(changed))
        except BadRequestError as error:
            assert changed != stream
            assert str(error).endswith("; nothing was imported")  # noqa: PT017
            assert contents(two) == before
        else:
            assert contents(two) == model


STARTS = [b"", b'{"id":"a","data_type":"one"}', b'{"agola_export":1', b"\x1f\x8b", b"\x28\xb5\x2f\xfd"]


@given(st.sampled_from(STARTS), st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
@settings(SETTINGS, max_examples=300)
def test_arbitrary_bytes_are_refused_with_one_error(start, rest):
    with contextlib.suppress(BadRequestError):  # anything else is a failure
        reader = ExportReader(io.BytesIO(start + rest), frozenset(TYPES), frozenset({"logs"}), 1 << 20)
        for _, entries in reader.groups():
            list(entries)
        for _, _, pieces in reader.items():
            list(pieces)
