"""Objects by their ids: updates with retries, and scans by prefix and in both directions."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agola_core
from agola_core import BadRequestError, ConflictError, ContentionError, CorruptionError, Delete, Options, Put
from agola_core.datamanager.sstable.view import after_prefix


def open_store(path, **options):
    return agola_core.open(path, data_types=["note", "other"], options=Options(background=False, **options))


@pytest.fixture
def dm(tmp_path):
    with open_store(tmp_path) as opened:
        yield opened


def test_update_creates_changes_leaves_and_deletes(dm):
    assert dm.update("note", "a", lambda old: b"1" if old is None else b"-") == b"1"
    assert dm.update("note", "a", lambda old: old + b"2") == b"12"
    sequence = dm.sequence
    assert dm.update("note", "a", lambda old: old) == b"12"
    assert dm.update("note", "b", lambda old: old) is None
    assert dm.sequence == sequence
    assert dm.update("note", "a", lambda old: None) is None
    assert not dm.exists("note", "a")


def test_updates_of_many_threads_and_processes_lose_nothing(tmp_path):
    with open_store(tmp_path) as dm, open_store(tmp_path) as other:

        def add(number):
            (dm, other)[number % 2].update("note", "a", lambda old: b"%d" % (int(old or b"0") + 1))

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(add, range(160)))
        dm.refresh()
        assert dm.get("note", "a") == b"160"


def test_update_gives_up_after_its_tries_and_says_so(dm):
    calls = []

    def overtaken(old):
        calls.append(old)
        dm.write_wal([Put("note", "a", b"%d" % len(calls))])
        return b"mine"

    with pytest.raises(
        ContentionError, match="note 'a': others changed it first, 3 times; nothing was written"
    ) as raised:
        dm.update("note", "a", overtaken, tries=3)
    assert isinstance(raised.value.__cause__, ConflictError)
    assert calls == [None, b"1", b"2"]
    assert dm.get("note", "a") == b"3"


def test_update_names_what_is_wrong(dm):
    for arguments, said in [
        (("note", "a", lambda old: "text"), "data must be bytes, not str"),
        (("note", "a", lambda old: 7), "data must be bytes, not int"),
        (("nothing", "a", lambda old: b""), "unknown data type 'nothing'"),
        (("note", "", lambda old: b""), "an id of 0 bytes"),
        (("note", "a", b"1"), "update takes a function"),
    ]:
        with pytest.raises(BadRequestError, match=said):
            dm.update(*arguments)
    for tries in (0, "x"):
        with pytest.raises(BadRequestError, match="tries is a number of at least 1"):
            dm.update("note", "a", lambda old: b"", tries=tries)
    with pytest.raises(json.JSONDecodeError):  # the function's own error comes through
        dm.update("note", "a", lambda old: json.loads("{").encode())
    assert dm.sequence.counter == 0


IDS = st.text(alphabet="ab\0\ud7ff\ue000\U0010ffff", min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    wals=st.lists(st.lists(st.tuples(IDS, st.none() | st.binary(max_size=9)), min_size=1, max_size=6), max_size=6),
    checkpoints=st.sets(st.integers(0, 5)),
    queries=st.lists(
        st.tuples(IDS | st.just(""), IDS | st.just(""), st.none() | st.integers(0, 4)), min_size=1, max_size=6
    ),
)
def test_scans_by_prefix_and_backwards_agree_with_a_sorted_list(tmp_path_factory, wals, checkpoints, queries):
    model = {}
    with open_store(tmp_path_factory.mktemp("store"), block_size=40, file_size=90) as dm:
        for number, wal in enumerate(wals):
            dm.write_wal([Delete("note", name) if data is None else Put("note", name, data) for name, data in wal])
            for name, data in wal:
                model.pop(name, None)
                if data is not None:
                    model[name] = data
            if number in checkpoints:
                dm.checkpoint(force=True)
        for start, prefix, limit in queries:
            for backwards in (False, True):
                wanted = [
                    item
                    for item in sorted(model.items(), reverse=backwards)
                    if item[0].startswith(prefix) and (not start or (item[0] < start if backwards else item[0] > start))
                ]
                found = dm.list_objects("note", start, limit, prefix=prefix, backwards=backwards)
                assert list(found) == wanted[:limit]
                with dm.snapshot() as snapshot:
                    assert list(snapshot.scan("note", start, prefix=prefix, backwards=backwards)) == wanted


def test_what_sorts_after_a_prefix():
    assert [after_prefix(text) for text in ("", "a", "a\U0010ffff", "\U0010ffff", "a\ud7ff")] == [
        "",
        "b",
        "b",
        "",
        "a\ue000",
    ]


def test_the_indexes_of_events_are_scanned_backwards_too(dm):
    with_events = agola_core.events.EventStore(dm)
    for checkpoint in (False, True):
        with_events.append([agola_core.events.Event("Opened", tags=["a"])], f"s{checkpoint}")
        forwards = {name: list(dm.list_objects(name)) for name in dm.stored_types if name.startswith("agola.")}
        assert any(forwards.values())
        for name, entries in forwards.items():
            assert list(dm.list_objects(name, backwards=True)) == entries[::-1]
            for key, _ in entries:
                wanted = [item for item in entries if item[0].startswith(key)]
                assert list(dm.list_objects(name, prefix=key)) == wanted
        dm.checkpoint(force=True)


def test_a_page_from_the_end_reads_only_the_end(tmp_path):
    noise = random.Random(1)
    with open_store(tmp_path, block_size=1000) as dm:
        dm.write_wal([Put("note", f"{number:05}", noise.randbytes(100)) for number in range(5000)])
        dm.checkpoint(force=True)
        files = (path for path in (tmp_path / "storage").rglob("*") if path.is_file())
        (file,) = (path for path in files if path.read_bytes().startswith(b"agola-data-1"))
        stored = file.read_bytes()
        file.write_bytes(stored[:100_000] + b"?" * 100_000 + stored[200_000:])
        assert [name for name, _ in dm.list_objects("note", limit=2, backwards=True)] == ["04999", "04998"]
        assert [name for name, _ in dm.list_objects("note", "00200", 1, backwards=True, prefix="001")] == ["00199"]
        with pytest.raises(CorruptionError):
            list(dm.list_objects("note"))


def test_the_history_of_an_object_has_what_is_kept(tmp_path):
    with open_store(tmp_path, retain_wals=0, retain_manifests=1, grace_period=0) as dm:
        for number in range(3):
            dm.write_wal([Put("note", "a", b"%d" % number), Put("note", f"b{number}", b"")], wal_id=f"w{number}")
        dm.write_wal([Delete("note", "a"), Put("other", "a", b"x")])
        history = dm.history("note", "a")
        dm.write_wal([Put("note", "a", b"later")])
        assert history.after.counter == 0
        changes = list(history)
        assert [(change.sequence.counter, change.data) for change in changes] == [
            (1, b"0"),
            (2, b"1"),
            (3, b"2"),
            (4, None),
        ]
        assert changes[0].wal_id == "w0"
        assert changes[0].time <= changes[-1].time
        assert [change.id for change in dm.history("note")] == ["a", "b0", "a", "b1", "a", "b2", "a", "a"]
        assert [change.data_type for change in dm.history()].count("other") == 1
        dm.checkpoint(force=True)
        dm.clean_up()
        dm.collect_garbage()
    with open_store(tmp_path) as dm:  # whose memory has no older WALs
        dm.write_wal([Put("note", "a", b"last")])
        kept = dm.history("note", "a")
        assert (kept.after.counter, [change.data for change in kept]) == (5, [b"last"])
        assert repr(kept).startswith("<History of note 'a' after")
        for arguments, said in [(("nothing",), "unknown data type"), (("", "a"), "needs its type")]:
            with pytest.raises(BadRequestError, match=said):
                dm.history(*arguments)
