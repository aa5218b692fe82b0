"""Which manifests stay: a pure decision."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from agola_core.datamanager.identity.manifest_history import StoredManifest, retained

START = datetime(2019, 7, 1, tzinfo=UTC)


def manifests(*minutes):
    return [
        StoredManifest(number, 1, f"{number}", "root/", START + timedelta(minutes=minute))
        for number, minute in enumerate(minutes, 1)
    ]


def numbers(found, current, keep=1, since=None, oldest_read=None):
    kept = retained(
        found,
        current,
        keep=keep,
        since=since or START + timedelta(days=1),
        oldest_read=current if oldest_read is None else oldest_read,
    )
    return [manifest.number for manifest in kept]


def test_the_newest_stay():
    assert numbers(manifests(0, 1, 2, 3), 4, keep=2) == [3, 4]
    assert numbers(manifests(0, 1, 2, 3), 4, keep=0) == [4]
    assert numbers(manifests(0), 1, keep=9) == [1]


def test_what_is_read_stays_and_everything_after_it():
    assert numbers(manifests(0, 1, 2, 3), 4, oldest_read=2) == [2, 3, 4]
    assert numbers(manifests(0, 1, 2, 3), 4, oldest_read=0) == [1, 2, 3, 4]


def test_one_that_is_being_made_stays():
    assert numbers(manifests(0, 1, 2), 2, keep=1) == [2, 3]


def test_young_ones_stay_and_the_one_that_stood_when_the_time_began():
    assert numbers(manifests(0, 10, 20, 30), 4, since=START + timedelta(minutes=20)) == [2, 3, 4]
    assert numbers(manifests(0, 10, 20, 30), 4, since=START - timedelta(minutes=1)) == [1, 2, 3, 4]
    assert numbers(manifests(0, 10, 20, 30), 4, since=START + timedelta(minutes=31)) == [4]


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=20),
    st.integers(1, 25),
    st.integers(0, 10),
    st.integers(0, 100),
    st.integers(0, 25),
)
def test_the_current_one_always_stays_and_more_is_never_fewer(minutes, current, keep, since, oldest_read):
    found = manifests(*minutes)
    current = min(current, len(found))
    when = START + timedelta(minutes=since)
    kept = numbers(found, current, keep, when, oldest_read)
    assert current in kept
    assert kept == sorted(kept)
    assert set(kept) <= set(numbers(found, current, keep + 1, when, oldest_read))
    assert set(kept) <= set(numbers(found, current, keep, when - timedelta(minutes=1), oldest_read))
    assert set(kept) <= set(numbers(found, current, keep, when, max(oldest_read - 1, 0)))
