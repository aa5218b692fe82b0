"""The merge policy: few runs, few rewrites, and a large store is left alone by small changes."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agola_core.datamanager.sstable.tiers import FLOOR, runs_to_merge

MIB = 1 << 20


class Simulation:
    """Runs as checkpoints make them, from sizes alone."""

    def __init__(self, base=0):
        self.runs = [base] if base else []
        self.written = 0
        self.changed = 0
        self.most = 0

    def checkpoint(self, delta, live=None):
        count = runs_to_merge(self.runs, delta)
        assert 0 <= count <= len(self.runs)
        merged = delta + sum(self.runs[:count])
        if live is not None and count == len(self.runs):
            merged = min(merged, live)  # the changes were to objects that the store had already
        self.runs[:count] = [merged]
        self.written += merged
        self.changed += delta
        self.most = max(self.most, len(self.runs))
        return count


def allowed_runs(total):
    return math.log2(max(total, FLOOR) / FLOOR) + 2


def test_nothing_is_merged_into_an_empty_store():
    assert runs_to_merge([], 10) == 0


@pytest.mark.parametrize("delta", [0, 1, FLOOR, MIB])
def test_a_small_delta_leaves_a_large_base_alone(delta):
    assert runs_to_merge([1024 * MIB], delta) == 0


def test_a_delta_as_large_as_everything_replaces_everything():
    assert runs_to_merge([MIB, 4 * MIB, 16 * MIB], 32 * MIB) == 3


def test_a_base_is_rewritten_only_once_as_much_has_changed():
    simulation = Simulation(base=1024 * MIB)
    while simulation.checkpoint(MIB) < len(simulation.runs) or len(simulation.runs) > 1:
        pass
    assert simulation.changed >= 1023 * MIB
    assert simulation.most <= 12


def test_a_thousand_checkpoints_write_each_byte_a_few_times():
    simulation = Simulation(base=1024 * MIB)
    for _ in range(1000):
        simulation.checkpoint(MIB)
    assert simulation.written / simulation.changed <= 6
    assert simulation.most <= 12


def test_changes_to_the_same_objects_for_ever_keep_runs_and_rewrites_bounded():
    simulation = Simulation(base=256 * MIB)
    for _ in range(10_000):
        simulation.checkpoint(MIB, live=256 * MIB)
    assert simulation.written / simulation.changed <= 7
    assert simulation.most <= 11
    assert sum(simulation.runs) <= 3 * 256 * MIB


def test_checkpoints_that_shrink_a_little_each_time_do_not_pile_up_runs():
    simulation = Simulation()
    for number in range(2000):
        simulation.checkpoint(32 * MIB - 1000 * number)
    assert simulation.most <= 12
    assert simulation.written / simulation.changed <= 12


def test_tiny_checkpoints_do_not_pile_up_runs():
    simulation = Simulation(base=64 * MIB)
    for _ in range(5000):
        simulation.checkpoint(100)
    assert simulation.most <= 4


@settings(max_examples=200, deadline=None)
@given(
    base=st.integers(0, 1 << 40),
    deltas=st.lists(st.one_of(st.integers(0, 100), st.integers(0, 64 * MIB), st.just(MIB)), min_size=1, max_size=300),
)
def test_runs_stay_logarithmic_and_each_outweighs_the_newer_ones(base, deltas):
    simulation = Simulation(base)
    for delta in deltas:
        simulation.checkpoint(delta)
        newer = 0
        for index, run in enumerate(simulation.runs):
            if index:
                assert max(run, FLOOR) > newer
            newer += run
        assert len(simulation.runs) <= allowed_runs(sum(simulation.runs))
    assert sum(simulation.runs) == base + sum(deltas)  # nothing is lost or counted twice


@settings(max_examples=100, deadline=None)
@given(base=st.integers(0, 1 << 36), deltas=st.lists(st.integers(FLOOR, 16 * MIB), min_size=1, max_size=300))
def test_a_byte_is_rewritten_about_as_often_as_the_store_doubles(base, deltas):
    """Each merge at least doubles the run that a byte is in, or it was in the newest ones of that size."""
    simulation = Simulation(base)
    for delta in deltas:
        simulation.checkpoint(delta)
    doublings = math.log2((base + simulation.changed) / min(deltas)) + 2
    assert simulation.written <= (simulation.changed + min(base, simulation.changed)) * doublings
