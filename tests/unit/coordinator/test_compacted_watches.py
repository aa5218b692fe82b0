"""A watch whose history was compacted is replaced by a new one, also when the coordinator is away just then."""

import threading

import pytest

import agola_core
from agola_core import Options, Put, maintenance
from agola_core.coordinator import PutOp
from agola_core.datamanager.background.follower import Follower
from agola_core.errors import ClosedError, UnavailableError
from agola_core.maintenance import Participant
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.memory.mirror import Mirror

OPTIONS = Options(background=False)


@pytest.fixture
def dm(tmp_path):
    with agola_core.open(tmp_path, data_types=["note"], options=OPTIONS) as opened:
        yield opened


@pytest.fixture
def coordinator(dm):
    return dm.coordinator


def compact(coordinator):
    coordinator.compact(coordinator.txn([], [PutOp("other", b"")]).revision)
    coordinator._hub._recent.clear()  # as after many more: they would still be known to this process


def once_away(coordinator, monkeypatch, then=list):
    """Let the next list of keys fail, and call something with those after it."""
    answered = coordinator.list
    calls = []

    def listed(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise UnavailableError("away")
        then()
        return answered(*args, **kwargs)

    monkeypatch.setattr(coordinator, "list", listed)


def is_closed(watch):
    try:
        watch.next(0)
    except ClosedError:
        return True
    return False


def test_a_follower_catches_up(dm, tmp_path, monkeypatch):
    stopping = threading.Event()
    follower = Follower(dm._log, dm._store.instance, stopping)
    old = follower._watch
    with agola_core.open(tmp_path, options=OPTIONS) as other:
        other.write_wal([Put("note", "n", b"1")])
        newest = other.sequence
    compact(dm.coordinator)
    once_away(dm.coordinator, monkeypatch, stopping.set)
    with pytest.raises(UnavailableError, match="away"):
        follower.follow()
    follower.follow()  # the next round of its loop
    assert dm._log.view.sequence == newest
    assert is_closed(old)
    assert is_closed(follower._watch)  # a stop before it was there did not see it


def test_a_mirror_loads_again(coordinator, monkeypatch):
    mirror = Mirror(coordinator, 1)
    old = mirror._watch
    coordinator.txn([], [PutOp(f"{run_keys.RUNS}new/0", b"[]")])
    compact(coordinator)
    once_away(coordinator, monkeypatch)
    with pytest.raises(UnavailableError, match="away"):
        mirror.follow(0.0)
    changes = mirror.follow(0.0)
    assert changes is not None
    assert changes.runs == {"new"}
    assert is_closed(old)
    assert not is_closed(mirror._watch)
    mirror.close()
    assert is_closed(mirror._watch)


def test_a_participant_reads_the_mode(coordinator, monkeypatch):
    participant = Participant(coordinator, "one", store="s", serve=lambda _: None, pause=lambda: None)
    old = participant._watch = coordinator.watch(maintenance.mode.KEY, coordinator.list("", limit=1).revision + 1)
    maintenance.enable(coordinator)
    compact(coordinator)
    once_away(coordinator, monkeypatch)
    with pytest.raises(UnavailableError, match="away"):
        participant._follow()
    participant._follow()
    assert participant._wanted == maintenance.mode.current(coordinator) != 0
    assert is_closed(old)
    assert not is_closed(participant._watch)
    participant.close()
