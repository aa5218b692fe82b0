"""Two SQLite coordinators on one database against a plain history: whatever is read, at whatever revision, agrees."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agola_core.coordinator import Compare, DeleteOp, DeleteRangeOp, GetOp, PutOp, Target
from agola_core.coordinator.port import KeyValue, iterate
from agola_core.coordinator.sqlite import schema as sql
from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator
from agola_core.errors import CompactedError

KEYS = ["a", "a/", "a/b", "a/b\0", "a/c", "a/é", "b", "b/😀", "\x7f"]
PREFIXES = ["", "a", "a/", "a/b", "b/", "c"]

keys = st.sampled_from(KEYS)
ops = st.lists(
    st.one_of(
        st.builds(PutOp, keys, st.binary(max_size=3), st.just(0)),
        st.builds(DeleteOp, keys),
        st.builds(GetOp, keys),
    ),
    max_size=6,
    unique_by=lambda op: (type(op) is GetOp, op.key),
)
ranges = st.lists(keys, min_size=2, max_size=2, unique=True).map(lambda ends: DeleteRangeOp(*sorted(ends)))


def outside(drawn):
    """Return the range among the operations, without those that write in it."""
    span, others, place = drawn
    others = [op for op in others if isinstance(op, GetOp) or not span.key <= op.key < span.end]
    return [*others[:place], span, *others[place:]]


ops = st.one_of(ops, st.tuples(ranges, ops, st.integers(0, 6)).map(outside))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("txn"), st.integers(0, 1), ops, keys, st.integers(0, 3)),
        st.tuples(st.just("list"), st.integers(0, 1), st.sampled_from(PREFIXES), st.sampled_from(["", *KEYS]),
                  st.integers(1, 4), st.integers(0, 8)),
        st.tuples(st.just("compact"), st.integers(0, 1), st.integers(0, 8)),
        st.tuples(st.just("reopen"), st.integers(0, 1)),
    ),
    max_size=40,
)  # fmt: skip


class Model:
    """Every state there was, by revision."""

    def __init__(self, revision):
        self.revision = revision
        self.states = {revision: {}}
        self.oldest = 0

    def txn(self, key, version, then):
        state = self.states[self.revision]
        item = state.get(key)
        if (item.version if item else 0) != version:
            return False, []
        state, reads, revision = dict(state), [], self.revision + 1
        before = dict(state)
        for op in then:
            old = state.get(op.key)
            if isinstance(op, GetOp):
                reads.append(old)
            elif isinstance(op, DeleteRangeOp):
                state = {key: item for key, item in state.items() if not op.key <= key < op.end}
            elif isinstance(op, DeleteOp):
                state.pop(op.key, None)
            elif old is None:
                state[op.key] = KeyValue(op.key, op.value, revision, revision, 1)
            else:
                state[op.key] = KeyValue(op.key, op.value, old.create_revision, revision, old.version + 1)
        if state != before:
            self.revision = revision
            self.states[revision] = state
        return True, reads


@pytest.mark.parametrize("unindexed", [0, 3, 256])
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=steps)
def test_reads_agree_with_the_history(unindexed, steps):
    original, sql.UNINDEXED = sql.UNINDEXED, unindexed
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "coordinator.db"
        opened = [SQLiteCoordinator(path), SQLiteCoordinator(path)]
        try:
            _compare(path, opened, steps)
        finally:
            sql.UNINDEXED = original
            for coordinator in opened:
                coordinator.close()


def _compare(path, opened, steps):
    model = Model(opened[0].list("").revision)
    for kind, which, *arguments in steps:
        coordinator = opened[which]
        match kind:
            case "txn":
                then, key, version = arguments
                succeeded, reads = model.txn(key, version, then)
                result = coordinator.txn([Compare(key, version, Target.VERSION)], then)
                assert (result.succeeded, list(result.reads)) == (succeeded, reads)
                assert result.revision == model.revision
            case "list":
                prefix, start_after, limit, age = arguments
                _compare_page(model, coordinator, prefix, start_after, limit, max(model.revision - age, 1))
            case "compact":
                revision = max(model.revision - arguments[0], 1)
                coordinator.compact(revision)
                model.oldest = max(model.oldest, revision)
            case "reopen":
                coordinator.close()
                opened[which] = SQLiteCoordinator(path)
    newest = model.states[model.revision]
    for coordinator in opened:
        assert [coordinator.get(key) for key in KEYS] == [newest.get(key) for key in KEYS]
        assert list(iterate(coordinator, "")) == sorted(newest.values(), key=lambda item: item.key.encode())
        with coordinator.watch("", max(model.oldest, 2)) as watch:
            for revision in range(max(model.oldest, 2), model.revision + 1):
                batch = watch.next(5)
                assert batch.revision == revision
                if revision > model.oldest:
                    before, after = model.states[revision - 1], model.states[revision]
                    last = {event.key: event.item for event in batch.events}
                    assert last == {
                        key: after.get(key) for key in {*before, *after} if before.get(key) != after.get(key)
                    }
            assert watch.next(0) is None


def _compare_page(model, coordinator, prefix, start_after, limit, revision):
    if revision < model.oldest:
        with pytest.raises(CompactedError):
            coordinator.list(prefix, start_after=start_after, limit=limit, revision=revision)
        return
    page = coordinator.list(prefix, start_after=start_after, limit=limit, revision=revision)
    state = model.states[revision]
    found = [
        state[key]
        for key in sorted(state, key=str.encode)
        if key.startswith(prefix) and (not start_after or key.encode() > start_after.encode())
    ]
    assert (list(page.items), page.more, page.revision) == (found[:limit], len(found) > limit, revision)
