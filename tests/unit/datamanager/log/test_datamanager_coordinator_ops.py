"""WALs whose transactions write a caller's own coordinator keys, too."""

import threading

import pytest

import agola_core
from agola_core import BadRequestError, ConflictError, Options, Put
from agola_core.coordinator.port import Compare, DeleteRangeOp, PutOp
from agola_core.datamanager import CoordinatorOps


@pytest.fixture
def dm(tmp_path):
    with agola_core.open(tmp_path, data_types=["note"], options=Options(background=False)) as dm:
        yield dm


def test_keys_are_written_with_the_wal_or_not_at_all(dm):
    coordinator_ops = CoordinatorOps((PutOp("up/a", b"1"),), (Compare("up/a", 0),))
    token = dm.write_wal([Put("note", "n", b"1")], coordinator_ops=coordinator_ops)
    assert dm.coordinator.get("up/a").mod_revision == token.revision
    with pytest.raises(ConflictError, match="up/a was changed by another writer"):
        dm.write_wal([Put("note", "n", b"2")], coordinator_ops=coordinator_ops)
    assert dm.read_object("note", "n")[0] == b"1"
    again = CoordinatorOps((PutOp("up/a", b"2"),), (Compare("up/a", token.revision),))
    dm.write_wal([Put("note", "n", b"3")], coordinator_ops=again)
    assert dm.coordinator.get("up/a").value == b"2"


def test_a_refused_guard_refuses_only_its_own_wal(dm):
    """Writers that meet in one transaction: the one that comes first on a key wins, those on other keys too."""
    outcomes = []

    def write(number):
        key = f"up/{number % 4}"
        try:
            dm.write_wal(
                [Put("note", str(number), b"")], coordinator_ops=CoordinatorOps((PutOp(key, b""),), (Compare(key, 0),))
            )
            outcomes.append(number)
        except ConflictError:
            pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number % 4 for number in outcomes) == [0, 1, 2, 3]
    assert sorted(int(name) for name, _ in dm.list_objects("note")) == sorted(outcomes)


def test_a_range_of_keys_is_refused():
    with pytest.raises(BadRequestError, match="a range of keys cannot be deleted along with a WAL"):
        CoordinatorOps((DeleteRangeOp("up/", "up0"),))
