"""The objects of a type as a MutableMapping, with codecs."""

import string
from collections.abc import MutableMapping
from typing import Any

import msgspec
import pytest

import agola_core
from agola_core import BadRequestError, Options, Put


class Note(msgspec.Struct):
    text: str
    size: int = 0


@pytest.fixture
def dm(tmp_path):
    with agola_core.open(tmp_path, data_types=["note"], options=Options(background=False)) as opened:
        yield opened


def test_bytes_behave_as_a_dictionary_does(dm):
    notes, model = dm.mapping("note"), {}
    assert isinstance(notes, MutableMapping)
    for mapping in (notes, model):
        mapping["b"] = b"2"
        mapping["a"] = b"1"
        mapping.update({"c": b"3", "d": b""}, e=b"5")
        mapping.update([("f", b"6")])
        mapping.update()
        del mapping["b"]
        assert mapping.pop("c") == b"3"
        assert mapping.pop("c", None) is None
        assert mapping.setdefault("a", b"-") == b"1"
        assert mapping.setdefault("g", b"7") == b"7"
        assert mapping.get("nothing", 8) == 8
        assert "a" in mapping
        assert "b" not in mapping
        assert 7 not in mapping
        for missing in ("b", 7):
            for wrong in (mapping.__getitem__, mapping.__delitem__, mapping.pop):
                with pytest.raises(KeyError):
                    wrong(missing)
    assert list(notes) == sorted(model)
    assert (len(notes), list(notes.items())) == (len(model), sorted(model.items()))
    assert list(notes.values()) == [model[name] for name in sorted(model)]
    assert notes == model
    assert ("a", b"1") in notes.items()
    assert b"7" in notes.values()
    assert notes.popitem() == ("a", b"1")
    notes.clear()
    assert (list(notes), bool(notes)) == ([], False)
    notes.clear()


def test_several_changes_are_one_wal_and_an_iteration_sees_one_state(dm):
    notes = dm.mapping("note")
    notes.update(dict.fromkeys(string.ascii_lowercase, b"1"))
    assert dm.sequence.counter == 1
    seen = []
    for object_id, data in notes.items():
        notes.clear()
        seen.append((object_id, data))
    assert len(seen) == 26
    assert len(notes) == 0


def test_values_of_a_type_are_checked_both_ways(dm):
    notes = dm.mapping("note", Note)
    notes["a"] = Note("hello", 5)
    assert dm.get("note", "a") == b'{"text":"hello","size":5}'
    assert notes["a"] == Note("hello", 5)
    dm.write_wal([Put("note", "b", b'{"size":5}'), Put("note", "c", b"\xff")])
    with pytest.raises(BadRequestError, match="note 'b' cannot be decoded: Object missing required field `text`"):
        notes["b"]
    with pytest.raises(BadRequestError, match="note 'c' cannot be decoded"):
        notes["c"]
    with pytest.raises(BadRequestError, match="cannot be encoded: Encoding objects of type object is unsupported"):
        notes["d"] = object()
    assert notes.change("a", lambda old: Note(old.text + "!", old.size + 1)) == Note("hello!", 6)
    assert notes.change("e", lambda old: old) is None
    assert notes.change("a", lambda old: None) is None
    assert "a" not in notes
    numbers = dm.mapping("note", dict[str, int])
    numbers["n"] = {"z": 1, "a": 2}
    assert dm.get("note", "n") == b'{"a":2,"z":1}'
    anything = dm.mapping("note", Any)
    anything["n"] = [None, 1.5, {"x": "y"}]
    assert anything["n"] == [None, 1.5, {"x": "y"}]


def test_a_value_of_another_type_is_refused_before_it_is_written(dm):
    class Number:
        def encode(self, value):
            return str(value).encode()

        def decode(self, data):
            return int(data)

    for codec, wrong in (
        (int, "seven"),
        (dict[str, int], {"x": "y"}),
        (Note, {"size": 1}),
        (int, None),
        (Number(), "s"),
    ):
        values = dm.mapping("note", codec)
        writes = [
            lambda values=values, wrong=wrong: values.__setitem__("a", wrong),
            lambda values=values, wrong=wrong: values.update({"a": wrong}),
            lambda values=values, wrong=wrong: values.setdefault("a", wrong),
        ]
        if wrong is not None:  # None deletes
            writes.append(lambda values=values, wrong=wrong: values.change("a", lambda old: wrong))
        for write in writes:
            with pytest.raises(BadRequestError, match="note 'a' cannot be encoded"):
                write()
            assert dict(values) == {}


def test_a_codec_of_ones_own(dm):
    class Text:
        def encode(self, value):
            return value.encode("ascii")

        def decode(self, data):
            return data.decode("ascii")

    notes = dm.mapping("note", Text())
    notes["a"] = "hello"
    assert (notes["a"], dm.get("note", "a")) == ("hello", b"hello")
    with pytest.raises(BadRequestError, match="note 'b' cannot be encoded"):
        notes["b"] = "ä"
    dm.write_wal([Put("note", "b", b"\xff")])
    with pytest.raises(BadRequestError, match="note 'b' cannot be decoded"):
        notes["b"]


def test_what_cannot_be_mapped_is_named(dm):
    for arguments, said in [
        (("other",), "unknown data type 'other'"),
        (("note", 7), "no codec for 7"),
        (("note", "json"), "no codec for 'json'"),
        (("note", dict[int, object] | Note | dict), "no codec for"),
    ]:
        with pytest.raises(BadRequestError, match=said):
            dm.mapping(*arguments)
    with pytest.raises(BadRequestError, match="data must be bytes, not str"):
        dm.mapping("note")["a"] = "text"
