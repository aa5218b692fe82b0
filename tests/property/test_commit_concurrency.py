"""Many threads of two processes on one store: only real conflicts refuse, and none is missed."""

import json
import subprocess
import sys
import textwrap
import threading

import agola_core
from agola_core import ConflictError, Options, Put

OPTIONS = Options(background=False)
THREADS = 6
WRITES = 12
JOIN_SECONDS = 120

# Writes to groups of its own, and counts a shared counter up under a shared group; prints what it was refused.
WORKER = textwrap.dedent(f"""
    import json, sys, threading
    import agola_core
    from agola_core import ConflictError, NotFoundError, Options, Put

    path, name = sys.argv[1:]
    refused = {{"own": 0, "shared": 0}}

    def own(dm, thread):
        token = dm.change_groups_token([f"{{name}}-{{thread}}"])
        for number in range({WRITES}):
            try:
                token = dm.write_wal([Put("own", f"{{name}}-{{thread}}-{{number}}", b"")], token)
            except ConflictError:
                refused["own"] += 1

    def shared(dm):
        for _ in range({WRITES}):
            while True:
                try:
                    data, token = dm.read_object("counter", "n", ["shared"])
                    dm.write_wal([Put("counter", "n", b"%d" % (int(data) + 1))], token)
                    break
                except ConflictError:
                    refused["shared"] += 1
                    dm.refresh()

    with agola_core.open(path, data_types=["own", "counter"], options=Options(background=False)) as dm:
        print("ready", flush=True)
        sys.stdin.readline()
        threads = [threading.Thread(target=own, args=(dm, index)) for index in range({THREADS})]
        threads += [threading.Thread(target=shared, args=(dm,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join({JOIN_SECONDS})
    print(json.dumps(refused), flush=True)
""")


def test_two_processes_on_disjoint_groups_are_never_refused_and_a_shared_counter_loses_nothing(tmp_path):
    with agola_core.open(tmp_path, data_types=["own", "counter"], options=OPTIONS) as dm:
        dm.write_wal([Put("counter", "n", b"0")], dm.change_groups_token(["shared"]))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    refused = [json.loads(process.communicate("go\n")[0]) for process in processes]
    assert [counts["own"] for counts in refused] == [0, 0]  # invariant 5
    with agola_core.open(tmp_path, data_types=["own", "counter"], options=OPTIONS) as dm:
        assert dm.read_object("counter", "n")[0] == b"%d" % (2 * 2 * WRITES)
        assert len(list(dm.list_objects("own"))) == 2 * THREADS * WRITES
        with dm.watch(after=agola_core.Sequence(1, 0)) as feed:
            counted = [
                int(action.data)
                for event in (feed.next(10) for _ in range(dm.sequence.counter))
                for action in event.actions
                if action.data_type == "counter"
            ]
        assert counted == list(range(2 * 2 * WRITES + 1))  # no two writers saw the same state


def test_of_many_writers_with_one_token_exactly_one_wins(tmp_path):
    with agola_core.open(tmp_path, data_types=["note"], options=OPTIONS) as dm:
        for attempt in range(10):
            token = dm.change_groups_token(["g", f"h{attempt}"])
            won, lost = [], []
            start = threading.Barrier(16)

            def write(number, token=token, won=won, lost=lost, start=start):
                start.wait()
                try:
                    dm.write_wal([Put("note", "winner", b"%d" % number)], token)
                    won.append(number)
                except ConflictError:
                    lost.append(number)

            threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(JOIN_SECONDS)
            assert (len(won), len(lost)) == (1, 15)
            assert dm.read_object("note", "winner")[0] == b"%d" % won[0]
            assert dm.sequence.counter == attempt + 1


def test_a_lost_race_for_the_head_is_no_refusal(tmp_path):
    """Another process commits between judging and committing, again and again: the writer never hears of it."""
    opened = [agola_core.open(tmp_path, data_types=["note"], options=OPTIONS) for _ in range(2)]
    dm, other = opened
    races = 5

    def race(name):
        nonlocal races
        if name == "commit.before-txn" and threading.current_thread() is threading.main_thread() and races:
            races -= 1
            thread = threading.Thread(target=other.write_wal, args=([Put("note", f"other-{races}", b"")],))
            thread.start()
            thread.join(JOIN_SECONDS)

    token = dm.change_groups_token(["g"])
    with agola_core.runtime.faultpoints.arm(race):
        dm.write_wal([Put("note", "mine", b"")], token)
    assert races == 0
    assert dm.sequence.counter == 6
    assert [key for key, _ in dm.list_objects("note")] == ["mine", *(f"other-{number}" for number in range(5))]
    for one in opened:
        one.close()
