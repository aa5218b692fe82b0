"""A readdb against a dictionary: whatever happens to it and to its store, it ends up with what the store has."""

import contextlib
import io
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import agola_core
from agola_core import Delete, Options, Put
from agola_core.readdb import ReadDB
from agola_core.runtime.context import Context

OPTIONS = Options(
    background=False, inline_limit=40, block_size=60, file_size=150, retain_wals=1, retain_manifests=1, grace_period=0
)
ids = st.sampled_from(["a", "aa", "b", "ä", "z" * 30])
puts = st.builds(Put, st.sampled_from(["one", "two"]), ids, st.binary(max_size=50))
deletes = st.builds(Delete, st.sampled_from(["one", "two"]), ids)
wals = st.lists(puts | deletes, min_size=1, max_size=5)


class Copy:
    name = "copy"
    data_types = ("one", "two")
    schema = "CREATE TABLE object (data_type TEXT, id TEXT, data BLOB, PRIMARY KEY (data_type, id)) WITHOUT ROWID"

    def __init__(self):
        self.version = 1
        self.dies = False

    def apply(self, tx, actions):
        for action in actions:
            if isinstance(action, Put):
                row = (action.data_type, action.id, action.data)
                tx.execute("INSERT OR REPLACE INTO object VALUES (?, ?, ?)", row)
            else:
                tx.execute("DELETE FROM object WHERE data_type = ? AND id = ?", (action.data_type, action.id))
            if self.dies:
                raise Died


class Died(BaseException):
    """The process ends here."""


class ReadDBMachine(RuleBasedStateMachine):
    """Writes, checkpoints, cleaning, crashes in a batch or a build, other versions, deleted files, imports."""

    @initialize()
    def open(self):
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name)
        self.model = {}
        self.projection = Copy()
        self.dm = agola_core.open(self.path / "store", data_types=["one", "two"], options=OPTIONS)
        self.readdb = self.open_readdb()

    def open_readdb(self):
        return ReadDB(self.dm, self.path / "read.db", [self.projection])

    def teardown(self):
        if hasattr(self, "dm"):
            self.it_equals_the_model_once_it_has_caught_up()
            self.readdb.close()
            self.dm.close()
            self.directory.cleanup()

    @rule(actions=wals)
    def write(self, actions):
        self.dm.write_wal(actions)
        for action in actions:
            if isinstance(action, Put):
                self.model[action.data_type, action.id] = action.data
            else:
                self.model.pop((action.data_type, action.id), None)

    @rule(first=wals, second=wals)
    def write_to_a_readdb_that_follows(self, first, second):
        self.readdb.catch_up()
        self.write(first)
        self.write(second)
        self.it_equals_the_model_once_it_has_caught_up()

    @rule()
    def checkpoint_and_forget(self):
        self.dm.checkpoint(force=True)
        self.dm.clean_up()
        self.dm.collect_garbage()

    @rule()
    def follow(self):
        self.readdb.catch_up()

    @rule()
    def rebuild(self):
        self.readdb.rebuild()

    @rule(build=st.booleans())
    def die(self, build):
        """End in the middle of a batch or a build, without closing anything, and open again."""
        self.projection.dies = True
        with contextlib.suppress(Died):
            if build:
                self.readdb.rebuild()
            else:
                self.readdb.catch_up()
        self.projection.dies = False
        if self.readdb._database is not None:
            self.readdb._database.close()
            self.readdb._database = None
        self.readdb.close()
        self.readdb = self.open_readdb()

    @rule()
    def another_version(self):
        self.readdb.close()
        self.projection.version += 1
        self.readdb = self.open_readdb()

    @rule()
    def lose_the_file(self):
        self.readdb.close()
        (self.path / "read.db").unlink(missing_ok=True)
        self.readdb = self.open_readdb()

    @rule()
    def import_an_earlier_state(self):
        exported = io.BytesIO()
        self.dm.export(exported)
        state = dict(self.model)
        self.write([Put("one", "gone", b"1")])
        exported.seek(0)
        self.dm.import_(exported)
        self.model = state

    @rule()
    def it_equals_the_model_once_it_has_caught_up(self):
        self.readdb.catch_up()
        rows = self.readdb.read(Context(), lambda tx: list(tx.rows("SELECT data_type, id, data FROM object")))
        assert {(data_type, object_id): data for data_type, object_id, data in rows} == self.model
        assert self.readdb.position == self.dm.sequence


ReadDBMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestReadDB = ReadDBMachine.TestCase
