"""Two datamanagers on one store against a plain dictionary and log: whatever happens in between, they agree."""

import contextlib
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import agola_core
from agola_core import CompactedError, ConflictError, Delete, Options, Put, RecoveryError, Sequence
from agola_core.runtime import faultpoints
from agola_core.runtime.faultpoints import InjectedFaultError

TYPES = ["one", "two"]
OPTIONS = Options(
    background=False,
    inline_limit=40,
    block_size=60,
    file_size=150,
    retain_wals=2,
    retain_wal_ids=3,
    retain_manifests=2,
    retain_groups=3,
    grace_period=0,
)
GROUPS = ["g", "h"]

data_types = st.sampled_from(TYPES)
ids = st.sampled_from(["a", "aa", "b", "ä", "c\0d", "z" * 30])
payloads = st.binary(max_size=60)
puts = st.builds(Put, data_types, ids, payloads)
deletes = st.builds(Delete, data_types, ids)
wals = st.lists(puts | deletes, min_size=1, max_size=5)
instances = st.integers(0, 1)


class StoreMachine(RuleBasedStateMachine):
    """Writes, conflicts, checkpoints, cleaning, collection, crashes, lost coordinators; and a model of it all."""

    @initialize()
    def open(self):
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name)
        self.state = {name: {} for name in TYPES}
        self.versions = dict.fromkeys(GROUPS, 0)
        self.tokens = []
        self.changes = Counter()
        self.entries = []
        self.log = []
        self.past = {0: {name: {} for name in TYPES}}
        self.instances = [self.open_one(), self.open_one()]
        self.start = self.instances[0].sequence

    def open_one(self, **options):
        return agola_core.open(self.path, data_types=TYPES, options=OPTIONS, **options)

    def wipe_coordinator(self):
        for file in self.path.glob("coordinator.db*"):
            file.unlink()

    def teardown(self):
        if hasattr(self, "instances"):
            for dm in self.instances:
                dm.close()
            self.directory.cleanup()

    def apply(self, actions):
        for action in actions:
            self.changes[action.data_type, action.id] += 1
            if isinstance(action, Put):
                self.state[action.data_type][action.id] = action.data
            else:
                self.state[action.data_type].pop(action.id, None)
        self.log.append(tuple(actions))
        self.past[len(self.log)] = {name: dict(objects) for name, objects in self.state.items()}

    def begin_lineage(self):
        """Note that the log begins anew: a recovery folded all that was before."""
        self.start = self.instances[0].sequence
        self.log.clear()
        self.past = {0: {name: dict(objects) for name, objects in self.state.items()}}
        self.versions = {group: version + 1000 for group, version in self.versions.items()}

    @rule(instance=instances, actions=wals)
    def write(self, instance, actions):
        self.instances[instance].write_wal(actions)
        self.apply(actions)

    @rule(instance=instances, groups=st.sets(st.sampled_from(GROUPS), min_size=1))
    def take_token(self, instance, groups):
        dm = self.instances[instance]
        dm.refresh()
        token = dm.change_groups_token(groups)
        self.tokens.append((token, {group: self.versions[group] for group in groups}))

    @precondition(lambda self: self.tokens)
    @rule(instance=instances, actions=wals, data=st.data())
    def write_with_token(self, instance, actions, data):
        token, seen = data.draw(st.sampled_from(self.tokens))
        unmoved = all(self.versions[group] == version for group, version in seen.items())
        dm = self.instances[instance]
        try:
            dm.write_wal(actions, token)
        except ConflictError:
            dm.refresh()
            forgotten = token.lineage != dm.lineage
            assert not unmoved or forgotten  # invariant 5: only real conflicts
            return
        assert unmoved
        self.apply(actions)
        for group in seen:
            self.versions[group] += 1

    @rule(instance=instances, data_type=data_types, object_id=ids)
    def read_an_entry(self, instance, data_type, object_id):
        dm = self.instances[instance]
        dm.refresh()
        entry = dm.entry(data_type, object_id)
        assert (entry and entry.data) == self.state[data_type].get(object_id)
        if entry is not None:
            self.entries.append((data_type, object_id, entry, self.changes[data_type, object_id]))

    @precondition(lambda self: self.entries)
    @rule(instance=instances, action=st.sampled_from([Put, Delete]), others=wals, new=payloads, data=st.data())
    def write_what_was_read(self, instance, action, others, new, data):
        data_type, object_id, entry, changes = data.draw(st.sampled_from(self.entries))
        given = (data_type, object_id, new) if action is Put else (data_type, object_id)
        try:
            self.instances[instance].write_wal([action(*given, expected=entry.version), *others])
        except ConflictError:
            assert self.changes[data_type, object_id] != changes  # invariant 5: only real conflicts
            return
        assert self.state[data_type].get(object_id) == entry.data
        self.apply([action(*given), *others])

    @rule(instance=instances, data_type=data_types, object_id=ids, new=payloads)
    def create(self, instance, data_type, object_id, new):
        try:
            self.instances[instance].write_wal([Put(data_type, object_id, new, if_absent=True)])
        except ConflictError:
            assert object_id in self.state[data_type]
            return
        assert object_id not in self.state[data_type]
        self.apply([Put(data_type, object_id, new)])

    @rule(instance=instances, actions=wals, wal_id=st.sampled_from(["k1", "k2"]))
    def write_twice_with_one_id(self, instance, actions, wal_id):
        first, second = self.instances[instance], self.instances[1 - instance]
        wal_id = f"{wal_id}-{self.start.epoch}-{len(self.log)}"  # a recovery remembers ids
        token = first.write_wal(actions, wal_id=wal_id)
        assert second.write_wal(actions, wal_id=wal_id) == token
        self.apply(actions)

    @rule(instance=instances)
    def checkpoint(self, instance):
        assert self.instances[instance].checkpoint(force=True)

    @rule(instance=instances)
    def sync(self, instance):
        self.instances[instance].sync()

    @rule(instance=instances)
    def clean_and_collect(self, instance):
        self.instances[instance].clean_up()
        for dm in self.instances:
            dm.refresh()
        self.instances[instance].collect_garbage()

    @rule(instance=instances)
    def reopen(self, instance):
        self.instances[instance].close()
        self.instances[instance] = self.open_one()

    @rule(instance=instances, data=st.data(), actions=wals)
    def crash_in_upkeep(self, instance, data, actions):
        """Stop a procedure at a fault point, drop the process's memory, and go on."""
        dm = self.instances[instance]
        dm.write_wal(actions)
        self.apply(actions)
        point = data.draw(st.sampled_from(sorted(faultpoints.declared())))
        with faultpoints.arm(faultpoints.trigger(f"{point}:1:raise")), contextlib.suppress(InjectedFaultError):
            dm.checkpoint(force=True)
            dm.clean_up()
            dm.collect_garbage()
        dm._store.log.close()
        dm.close()
        self.instances[instance] = self.open_one()

    @rule()
    def lose_the_coordinator(self):
        self.instances[0].sync()
        for dm in self.instances:
            dm.close()
        self.wipe_coordinator()
        self.instances = [self.open_one(), self.open_one()]
        self.begin_lineage()

    @rule(actions=wals, data=st.data())
    def lose_the_coordinator_and_crash_in_the_recovery(self, actions, data):
        self.instances[0].write_wal(actions)
        self.apply(actions)
        self.instances[0].sync()
        for dm in self.instances:
            dm.close()
        self.wipe_coordinator()
        points = [
            "checkpoint.before-data-file",
            *(p for p in faultpoints.declared() if p.startswith(("lineage.", "recovery."))),
        ]
        point = data.draw(st.sampled_from(sorted(points)))
        with faultpoints.arm(faultpoints.trigger(f"{point}:1:raise")), contextlib.suppress(InjectedFaultError):
            self.open_one().close()
        self.instances = [self.open_one(), self.open_one()]
        self.begin_lineage()

    @rule(actions=wals, more=wals)
    def restore_an_old_coordinator(self, actions, more):
        """A backup of the coordinator is noticed, and nothing that reached the storage is lost."""
        self.instances[0].write_wal(actions)
        self.apply(actions)
        for dm in self.instances:
            dm.close()
        backup = {file: file.read_bytes() for file in self.path.glob("coordinator.db*")}
        with self.open_one() as dm:
            dm.write_wal(more)
            dm.sync()
        self.apply(more)
        for file in self.path.glob("coordinator.db*"):
            file.unlink()
        for file, content in backup.items():
            file.write_bytes(content)
        with pytest.raises(RecoveryError):
            self.open_one()
        self.instances = [self.open_one(recover=True)]
        self.instances.append(self.open_one())
        self.begin_lineage()

    @rule(instance=instances, actions=wals, data=st.data())
    def crash_in_a_write(self, instance, actions, data):
        """What became of the WAL is not known to its writer; it is there whole, or not at all."""
        dm = self.instances[instance]
        dm.refresh()
        point = data.draw(st.sampled_from(["commit.before-payload", "commit.before-txn", "commit.after-txn"]))
        with faultpoints.arm(faultpoints.trigger(f"{point}:1:raise")), contextlib.suppress(InjectedFaultError):
            dm.write_wal(actions)
        dm._store.log.close()
        dm.close()
        self.instances[instance] = self.open_one()
        if self.instances[instance].sequence.counter > len(self.log):
            self.apply(actions)

    @rule(data=st.data())
    def read_the_past(self, data):
        counter = data.draw(st.integers(0, len(self.log)))
        at = Sequence(self.start.epoch, counter)
        retained = min(Sequence.parse(item.sequence) for item in self.instances[0].checkpoints())
        try:
            with self.open_one(at=at) as past:
                assert {name: dict(past.list_objects(name)) for name in TYPES} == self.past[counter]
        except CompactedError:
            assert at < retained

    @rule(instance=instances)
    def verify(self, instance):
        assert self.instances[instance].verify() == []

    @invariant()
    def both_see_the_model(self):
        if not hasattr(self, "instances"):
            return
        for dm in self.instances:
            dm.refresh()
            for name in TYPES:
                assert dict(dm.list_objects(name)) == self.state[name]
                assert [key for key, _ in dm.list_objects(name)] == sorted(self.state[name])
                for key, value in self.state[name].items():
                    assert dm.read_object(name, key)[0] == value
            assert dm.sequence.counter == len(self.log)


StoreMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStore = StoreMachine.TestCase
