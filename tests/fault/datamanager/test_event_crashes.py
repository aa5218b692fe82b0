"""Processes that append are really killed, beside one that goes on: positions stay whole, each event stands once."""

import os
import subprocess
import sys
import textwrap

import pytest

import agola_core
from agola_core import Options
from agola_core.events import Query

# Appends events with ids, each twice as a retry would, and makes checkpoints; prints what was acknowledged.
WORKER = textwrap.dedent("""
    import sys
    import agola_core
    from agola_core import Options
    from agola_core.events import AppendCondition, Event, Query

    path, name, rounds = sys.argv[1:]
    options = Options(background=False, inline_limit=200, block_size=200, file_size=800, retain_wals=2,
                      retain_manifests=1, grace_period=0, lock_ttl=3)
    with agola_core.open_events(path, options=options) as store:
        for number in range(int(rounds)):
            events = [Event("E", b"x" * 40 * part, tags=[name, f"n:{number}"], id=f"{name}-{number}-{part}")
                      for part in range(number % 3 + 1)]
            condition = AppendCondition(Query(tags=[name, f"n:{number}"]))
            first = store.append(events, name, condition=condition)
            assert store.append(events, name, condition=condition) == first
            print(number, first, flush=True)
            if number % 4 == 3:
                store.store.checkpoint(force=True)
                store.store.clean_up()
                store.store.collect_garbage()
    """)

POINTS = [
    "commit.before-txn", "commit.after-txn", "commit.before-payload",
    "checkpoint.before-data-file", "checkpoint.before-manifest", "checkpoint.before-txn",
]  # fmt: skip


def start(path, name, rounds, point=""):
    environment = {**os.environ, **({"AGOLA_FAULTPOINT": point} if point else {})}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path), name, str(rounds)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_a_writer_is_killed_beside_another(tmp_path, point):
    agola_core.open_events(tmp_path).close()
    killed, other = start(tmp_path, "killed", 12, f"{point}:2:kill"), start(tmp_path, "other", 12)
    acknowledged = {"killed": killed.communicate(timeout=100), "other": other.communicate(timeout=100)}
    assert (killed.returncode, other.returncode) == (-9, 0), acknowledged
    again = start(tmp_path, "killed", 12)  # what it had written before is found by the ids
    acknowledged["again"] = again.communicate(timeout=100)
    assert again.returncode == 0, acknowledged
    with agola_core.open_events(tmp_path, options=Options(background=False)) as store:
        events = list(store.read())
        assert [event.position for event in events] == list(range(1, store.head + 1))
        wanted = [f"{number}-{part}" for number in range(12) for part in range(number % 3 + 1)]
        for name in ("killed", "other"):
            stream = list(store.read_stream(name))
            assert [event.id for event in stream] == [f"{name}-{one}" for one in wanted]
            assert [event.version for event in stream] == list(range(1, len(wanted) + 1))
            assert list(store.read(Query(tags=[name]))) == stream
        places = {event.id: event.position for event in events}
        for (out, _), name in zip(acknowledged.values(), ("killed", "other", "killed"), strict=True):
            for line in out.splitlines():
                number, position = map(int, line.split())
                assert places[f"{name}-{number}-{number % 3}"] == position
        assert store.store.verify() == []
