"""What may be written, by whom: change groups and their tokens, malformed WALs, and where a WAL stands."""

import pytest

import agola_core
from agola_core import (
    BadRequestError,
    ChangeGroupsToken,
    ConflictError,
    Delete,
    FencedError,
    NotFoundError,
    Options,
    Put,
    TokenExpiredError,
    WalStatus,
)
from agola_core.coordinator import PutOp
from agola_core.datamanager.format import records
from agola_core.datamanager.log.commit.pending_wal import PendingWal
from agola_core.runtime import faultpoints


def open_store(path, **options):
    return agola_core.open(path, data_types=["note", "other"], options=Options(background=False, **options))


@pytest.fixture
def dm(tmp_path):
    with open_store(tmp_path / "store", inline_limit=100, max_wal_bytes=2000, max_wal_actions=10) as dm:
        yield dm


def objects_of(dm):
    return [info.path for info in dm.storage.list("")]


# Malformed WALs


BAD_ACTIONS = {
    "no actions": ([], "at least one action"),
    "a single action": (Put("note", "a", b""), "not a single Put"),
    "no list": (7, "list of actions, not int"),
    "another thing": (["a"], "expected Put or Delete, not str"),
    "an unknown data type": (
        [Put("note", "a", b""), Put("nope", "a", b"")],
        "action 1: unknown data type 'nope'; known are note",
    ),
    "a data type of another type": ([Put(["note"], "a", b"")], "unknown data type"),
    "an empty id": ([Put("note", "", b"")], "an id of 0 bytes"),
    "an empty id to delete": ([Delete("note", "")], "an id of 0 bytes"),
    "an over-long id": ([Put("note", "é" * 513, b"")], "an id of 1026 bytes; 1 to 1024"),
    "an id of another type": ([Put("note", 7, b"")], "an id must be a string, not int"),
    "an id that is no text": ([Put("note", "\ud800", b"")], "the id is not valid Unicode"),
    "text as data": ([Put("note", "a", "text")], "data must be bytes, not str"),
    "no data": ([Put("note", "a", None)], "data must be bytes, not NoneType"),
    "too many bytes": ([Put("note", "a", b"x" * 1000), Put("note", "b", b"x" * 1000)], "2002 bytes; .* at most 2000"),
    "too many actions": ([Delete("note", "a")] * 11, "11 actions; .* at most 10"),
}


@pytest.mark.parametrize(("actions", "message"), BAD_ACTIONS.values(), ids=BAD_ACTIONS.keys())
def test_a_malformed_wal_is_one_clear_error_and_writes_nothing(dm, actions, message):
    before, revision = objects_of(dm), dm.coordinator.list("").revision
    with pytest.raises(BadRequestError, match=message):
        dm.write_wal(actions, dm.change_groups_token(["g"]), wal_id="key")
    assert objects_of(dm) == before
    assert dm.coordinator.list("").revision == revision
    dm.write_wal([Put("note", "a" * 1024, b"")], wal_id="key")
    assert dm.sequence.counter == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"wal_id": "x" * 257}, "257 bytes; at most 256"),
        ({"wal_id": "\ud800"}, "not valid Unicode"),
        ({"wal_id": 7}, "must be a string, not int"),
        ({"token": "text"}, "not str: decode its text first"),
        ({"token": ChangeGroupsToken(groups={"a/b": 0})}, "has a '/'"),
        ({"token": ChangeGroupsToken(groups={"": 0})}, "1 to 256 characters"),
        ({"token": ChangeGroupsToken(groups={"x" * 257: 0})}, "1 to 256 characters"),
    ],
)
def test_malformed_arguments_are_one_clear_error_and_write_nothing(dm, arguments, message):
    with pytest.raises(BadRequestError, match=message):
        dm.write_wal([Put("note", "a", b"x" * 500)], **arguments)
    assert dm.sequence.counter == 0
    assert not [path for path in objects_of(dm) if path.startswith("payloads/")]


@pytest.mark.parametrize("text", ["?", "e30", "e30=", "bnVsbA==", "WzFd", "eyJjdXJfcmV2aXNpb24iOiJhIn0="])
def test_a_malformed_token_text_is_refused(text):
    if text == "e30=":  # {}: the token that guards nothing
        assert ChangeGroupsToken.decode(text) == ChangeGroupsToken()
        return
    with pytest.raises(BadRequestError, match="not a change groups token"):
        ChangeGroupsToken.decode(text)


# Change groups


def test_group_names_are_agolas(dm):
    longest = "é" * 256
    token = dm.change_groups_token([longest, "a b", "ä-😀", "x"])
    assert token.groups == {longest: 0, "a b": 0, "ä-😀": 0, "x": 0}
    after = dm.write_wal([Put("note", "a", b"")], token)
    assert dm.change_groups_token([longest, "new"]).groups == {longest: after.revision, "new": 0}
    for names in (["a/b"], [""], ["x" * 257], [7], "x", ["\ud800"]):
        with pytest.raises(BadRequestError, match="change group"):
            dm.change_groups_token(names)


def test_a_token_survives_as_text_and_guards_the_same(dm):
    token = ChangeGroupsToken.decode(dm.change_groups_token(["g"]).encode())
    after = dm.write_wal([Put("note", "a", b"")], token)
    with pytest.raises(ConflictError):
        dm.write_wal([Put("note", "b", b"")], token)
    dm.write_wal([Put("note", "c", b"")], ChangeGroupsToken.decode(after.encode()))


def test_tokens_without_groups_follow_the_log_and_share_nothing(dm):
    before, again = dm.change_groups_token(()), dm.change_groups_token(())
    assert before == again
    again.groups["g"] = 1  # a caller's own
    written = dm.write_wal([Put("note", "a", b"1")])
    _, read = dm.read_object("note", "a")
    assert read == dm.change_groups_token([]) == written
    assert before.sequence < read.sequence
    assert before.revision < read.revision


def test_a_token_of_another_process_that_has_seen_more_is_no_conflict(tmp_path):
    with open_store(tmp_path) as dm, open_store(tmp_path) as other:
        token = other.write_wal([Put("note", "a", b"")], dm.change_groups_token(["g"]))
        token = dm.write_wal([Put("note", "b", b"")], token)
        token = other.write_wal([Put("note", "c", b"")], token)
        dm.write_wal([Put("note", "d", b"")], token)
        with pytest.raises(ConflictError):
            other.write_wal([Put("note", "e", b"")], token)
        ahead = ChangeGroupsToken(token.revision + 1000, {"g": token.revision + 1000}, token.lineage)
        with pytest.raises(ConflictError):
            other.write_wal([Put("note", "e", b"")], ahead)


def test_nobody_is_refused_for_the_sake_of_a_writer_in_the_same_transaction_that_is_refused_itself(tmp_path):
    with open_store(tmp_path) as dm, open_store(tmp_path) as other:

        def waiting(object_id, groups):
            actions, token = [Put("note", object_id, b"")], dm.change_groups_token(groups)
            encoded = records.encode_actions(actions)
            return PendingWal(
                actions, encoded, None, token, wal_id=object_id, remembered=False, digest="", lineage=dm.lineage
            )

        first, second = waiting("first", ["g", "h"]), waiting("second", ["h"])
        passed = []

        def overtake(name):
            if name == "commit.before-txn" and not passed:
                passed.append(name)
                other.write_wal([Put("note", "other", b"")], other.change_groups_token(["g"]))

        with faultpoints.arm(overtake):
            dm._writer.group_commit._work([first, second])
        assert isinstance(first.error, ConflictError)
        assert second.error is None
        assert [key for key, _ in dm.list_objects("note")] == ["other", "second"]


def test_a_group_that_was_created_meanwhile_conflicts_with_a_token_that_saw_none(dm):
    token, other = dm.change_groups_token(["g", "h"]), dm.change_groups_token(["h"])
    dm.write_wal([Put("note", "a", b"")], other)
    with pytest.raises(ConflictError, match="'h'"):
        dm.write_wal([Put("note", "b", b"")], token)


def test_a_token_of_another_store_is_refused(dm, tmp_path):
    with open_store(tmp_path / "other") as other:
        for groups in (["g"], []):
            token = other.change_groups_token(groups)
            with pytest.raises(TokenExpiredError, match="another store"):
                dm.write_wal([Put("note", "a", b"x" * 500)], token)
    assert dm.sequence.counter == 0


def test_tokens_do_not_age_with_what_happens_to_others(tmp_path):
    """Neither revisions of other keys, WALs without groups, cleaning nor compaction make a token old."""
    with open_store(tmp_path, retain_wals=1, retain_groups=2) as dm:
        seen, unseen = dm.change_groups_token(["g"]), dm.change_groups_token(["never"])
        seen = dm.write_wal([Put("note", "a", b"")], seen)
        for number in range(300):
            dm.coordinator.txn([], [PutOp("noise", b"%d" % number)])
            dm.write_wal([Put("note", "b", b"")])
        dm.checkpoint(force=True)
        dm.clean_up()
        dm.coordinator.compact(dm.coordinator.list("").revision)
        dm.write_wal([Put("note", "c", b"")], seen)
        dm.write_wal([Put("note", "d", b"")], unseen)


def test_a_token_from_before_the_retained_groups_is_refused(tmp_path):
    with open_store(tmp_path, retain_groups=3) as dm, open_store(tmp_path, retain_groups=3) as other:
        old = other.change_groups_token(["old"])
        for number in range(200):
            last = dm.write_wal([Put("note", "a", b"")], dm.change_groups_token([f"g{number}"]))
        assert dm.clean_up() >= 197
        kept = [item.key for item in dm.coordinator.list("dm/changegroups/").items]
        assert kept == ["dm/changegroups/g197", "dm/changegroups/g198", "dm/changegroups/g199"]
        for instance in (dm, other):
            with pytest.raises(TokenExpiredError, match="oldest retained"):
                instance.write_wal([Put("note", "b", b"")], old)
        other.write_wal([Put("note", "c", b"")], last)
        fresh = other.change_groups_token(["g0", "old"])
        assert fresh.groups == {"g0": 0, "old": 0}
        other.write_wal([Put("note", "d", b"")], fresh)
    with open_store(tmp_path) as again, pytest.raises(TokenExpiredError):
        again.write_wal([Put("note", "e", b"")], old)


@pytest.mark.parametrize("backend", ["sqlite", "etcd"])
@pytest.mark.parametrize("cleaned_by_another", [False, True])
def test_a_group_that_was_forgotten_has_not_moved(tmp_path, request, backend, cleaned_by_another):
    etcd = request.getfixturevalue("agola_etcd").url(f"forgotten-{cleaned_by_another}") if backend == "etcd" else None
    where = {"storage": f"posix://{tmp_path}", "coordinator": etcd} if etcd else {"path": tmp_path}
    options = Options(background=False, retain_groups=2)
    with (
        agola_core.open(**where, data_types=["note"], options=options) as dm,
        agola_core.open(**where, data_types=["note"], options=options) as other,
    ):
        first = dm.write_wal([Put("note", "a", b"")], dm.change_groups_token(["g0"]))
        for number in range(1, 200):
            dm.write_wal([Put("note", "a", b"")], dm.change_groups_token([f"g{number}"]))
        token = dm.change_groups_token(["g0"])
        assert token.groups == first.groups
        moved = dm.change_groups_token(["g1"])
        assert (other if cleaned_by_another else dm).clean_up() >= 198
        with pytest.raises(TokenExpiredError):
            dm.write_wal([Put("note", "b", b"")], first)
        written = dm.write_wal([Put("note", "b", b"")], token)  # nobody wrote: no conflict
        with pytest.raises(ConflictError, match="'g0' was changed by another writer"):
            other.write_wal([Put("note", "c", b"")], token)
        other.write_wal([Put("note", "c", b"")], written)
        other.write_wal([Put("note", "d", b"")], other.change_groups_token(["g1"]))
        with pytest.raises(ConflictError):  # forgotten, then written again
            dm.write_wal([Put("note", "e", b"")], moved)


def test_forgetting_groups_takes_no_writer_by_surprise(tmp_path):
    """A group that is touched while the cleaner works is not forgotten with its older state."""
    with open_store(tmp_path, retain_groups=1) as dm, open_store(tmp_path, retain_groups=1) as cleaner:
        tokens = {}
        for number in range(120):
            tokens[number] = dm.write_wal([Put("note", "a", b"")], dm.change_groups_token([f"g{number}"]))
        with agola_core.runtime.faultpoints.arm(
            lambda name: dm.write_wal([Put("note", "b", b"")], tokens.pop(0)) if 0 in tokens else None
        ):
            cleaner.clean_up()
        cleaner.clean_up()
        assert dm.change_groups_token(["g0"]).groups["g0"] > 0  # the newest of all


# Where a WAL stands


def test_a_wal_goes_from_committed_to_storage_to_a_checkpoint(dm):
    first = dm.write_wal([Put("note", "a", b"")]).sequence
    assert dm.wal_status(first) is WalStatus.COMMITTED
    dm.sync()
    second = dm.write_wal([Put("note", "b", b"")]).sequence
    assert [dm.wal_status(one) for one in (first, second)] == [WalStatus.COMMITTED_STORAGE, WalStatus.COMMITTED]
    dm.checkpoint(force=True)
    dm.clean_up()
    assert [dm.wal_status(one) for one in (first, second)] == [WalStatus.CHECKPOINTED] * 2
    with pytest.raises(NotFoundError, match="newest"):
        dm.wal_status(dm.sequence.next())
    with pytest.raises(NotFoundError):
        dm.wal_status(agola_core.Sequence(1, 0))
    with pytest.raises(BadRequestError):
        dm.wal_status("yesterday")


def test_a_wal_of_an_ended_history_has_no_status(tmp_path):
    with open_store(tmp_path) as dm:
        old = dm.write_wal([Put("note", "a", b"")]).sequence
        dm.sync()
    recovered = agola_core.open(tmp_path, data_types=["note"], recover=True, options=Options(background=False))
    with recovered as dm, pytest.raises(FencedError, match="another epoch"):
        dm.wal_status(old)


def test_another_instance_knows_where_a_wal_stands(tmp_path):
    with open_store(tmp_path) as one, open_store(tmp_path) as two:
        sequence = one.write_wal([Put("note", "a", b"")]).sequence
        assert two.wal_status(sequence) is WalStatus.COMMITTED
        one.sync()
        assert two.wal_status(sequence) is WalStatus.COMMITTED_STORAGE
        one.checkpoint(force=True)
        two.refresh()
        assert two.wal_status(sequence) is WalStatus.CHECKPOINTED
