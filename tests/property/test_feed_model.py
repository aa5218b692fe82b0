"""Several views, feeds and readdbs of one store, as several processes have them: nothing skipped, nothing repeated.

Each datamanager takes in what the others did only when it reloads, so its feeds meet every place before, at and
beyond its view, over checkpoints, cleaning and collection. What memory and a page hold is made small: feeds read
the coordinator and the storage, too.
"""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import agola_core
from agola_core import CompactedError, Delete, Options, Put, Sequence
from agola_core.datamanager.log import feed as feed_module
from agola_core.datamanager.log import recent_wals
from agola_core.readdb import ReadDB
from agola_core.runtime.context import Context

OPTIONS = Options(
    background=False,
    inline_limit=40,
    block_size=60,
    file_size=150,
    retain_wals=1,
    retain_manifests=1,
    grace_period=0,
)
PROCESSES = 2

processes = st.integers(0, PROCESSES - 1)
ids = st.sampled_from(["a", "b", "c"])
wals = st.lists(
    st.builds(Put, st.just("note"), ids, st.binary(max_size=50)) | st.builds(Delete, st.just("note"), ids),
    min_size=1,
    max_size=2,
)


class Copy:
    name, version, data_types = "copy", 1, ("note",)
    schema = "CREATE TABLE note (id TEXT PRIMARY KEY, data BLOB) WITHOUT ROWID"

    def apply(self, tx, actions):
        for action in actions:
            if isinstance(action, Put):
                tx.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (action.id, action.data))
            else:
                tx.execute("DELETE FROM note WHERE id = ?", (action.id,))


class CountingReadDB(ReadDB):
    """Counts how often it is built."""

    builds = 0

    def rebuild(self, context=None):
        self.builds += 1
        super().rebuild(context)


class Process:
    """What one process has: a datamanager, a readdb, and the place that its feed is to go on from."""

    def __init__(self, path, number):
        self.path, self.number = path, number
        self.dm = agola_core.open(path / "store", data_types=["note"], options=OPTIONS)
        self.readdb = CountingReadDB(self.dm, path / f"read-{number}.db", [Copy()])
        self.feed = None

    def close(self):
        self.readdb.close()
        self.dm.close()


class FeedMachine(RuleBasedStateMachine):
    """Commits, checkpoints, reloads, cleaning and collection by any process, at every interleaving."""

    @initialize()
    def open(self):
        self.constants = pytest.MonkeyPatch()
        self.constants.setattr(recent_wals, "_RECENT_WALS", 1)
        self.constants.setattr(feed_module, "_PAGE", 3)
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name)
        self.log = []
        self.states = [{}]
        self.collected = 0
        self.processes = [Process(self.path, number) for number in range(PROCESSES)]
        self.epoch = self.processes[0].dm.sequence.epoch
        for process in self.processes:
            process.readdb.catch_up()

    def teardown(self):
        if hasattr(self, "processes"):
            for process in self.processes:
                process.close()
            self.constants.undo()
            self.directory.cleanup()

    def is_kept(self, counter):
        """Return whether the WALs after a place must be there: a collection spares those after the oldest manifest."""
        return counter >= self.collected

    @rule(number=processes, several=st.lists(wals, min_size=1, max_size=3))
    def write(self, number, several):
        for actions in several:
            self.processes[number].dm.write_wal(actions)
            self.note(actions)

    def note(self, actions):
        state = dict(self.states[-1])
        for action in actions:
            if isinstance(action, Put):
                state[action.id] = action.data
            else:
                state.pop(action.id, None)
        self.log.append(tuple(actions))
        self.states.append(state)

    @rule(number=processes)
    def reload(self, number):
        assert self.processes[number].dm.refresh().counter == len(self.log)

    @rule(number=processes)
    def checkpoint(self, number):
        assert self.processes[number].dm.checkpoint(force=True)

    @rule(number=processes)
    def clean(self, number):
        self.processes[number].dm.clean_up()

    @rule(number=processes)
    def collect(self, number):
        dm = self.processes[number].dm
        self.collected = max(self.collected, dm.refresh().counter)  # no newer manifest can be the oldest
        dm.collect_garbage()

    @rule(number=processes)
    def open_anew(self, number):
        self.processes[number].close()
        self.processes[number] = Process(self.path, number)

    @rule(number=processes, data=st.data())
    def watch(self, number, data):
        """Go on from a place that any process may have given, also one beyond this process's view."""
        process = self.processes[number]
        after = data.draw(st.integers(0, len(self.log)))
        try:
            process.feed = process.dm.watch(after=Sequence(self.epoch, after))
        except CompactedError:
            assert not self.is_kept(after)
            process.feed = None

    @precondition(lambda self: any(process.feed for process in self.processes))
    @rule(number=processes, steps=st.integers(1, 8))
    def follow(self, number, steps):
        process = self.processes[number]
        for _ in range(steps if process.feed else 0):
            place = process.feed.position.counter
            try:
                event = process.feed.next(0)
            except CompactedError:
                assert not self.is_kept(place)
                process.feed = None
                return
            if event is None:
                assert place >= process.dm.sequence.counter
                return
            assert event.sequence.counter == place + 1
            assert event.actions == self.log[place]

    @rule(number=processes)
    def follow_into_the_readdb(self, number):
        process = self.processes[number]
        readdb, builds = process.readdb, process.readdb.builds
        place = readdb.position.counter
        readdb.catch_up()
        assert readdb.builds == builds or not self.is_kept(place)
        assert readdb.position >= process.dm.sequence
        rows = readdb.read(Context(), lambda tx: dict(tx.rows("SELECT id, data FROM note")))
        assert rows == self.states[readdb.position.counter]

    @invariant()
    def an_event_is_no_newer_than_what_its_process_reads(self):
        for process in getattr(self, "processes", []):
            assert process.feed is None or process.feed.position <= process.dm.sequence


FeedMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck)
)
TestFeeds = FeedMachine.TestCase
