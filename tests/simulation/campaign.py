"""The campaign: worlds in which the processes of one store crash, are paused, and lose calls and answers."""

from __future__ import annotations

import gc
import logging
import random
from collections import Counter
from functools import partial
from typing import Any

import msgspec

from agola_core import Durability
from agola_core.runtime import faultpoints
from tests.simulation.life import OPTIONS, Life, Store
from tests.simulation.memory_coordinator import Cluster
from tests.simulation.scheduler import Process, Rates, World
from tests.simulation.threads import installed
from tests.soak.trial import Campaign, Violation

CYCLES = 40
_SLOTS = (1, 2, 2, 3)
_DOWN = 0.5
_OFFSETS = (0.0, 1.0, -1.0, 3600.0, -3600.0, 10 * 365 * 86400.0, -10 * 365 * 86400.0)


def trial(seed: int, cycles: int = CYCLES) -> Counter[str]:
    """Run one world until its processes have crashed, and recovered, some times.

    Raises:
        Violation: Something acknowledged was lost, something refused was seen, or any other promise was not kept.
    """
    return play(seed, cycles).counts


def play(seed: int, cycles: int = CYCLES) -> World:
    """Run the world of a seed, and return it: two plays have the same trace where Python hashes alike."""
    rng = random.Random(seed)
    world = World(seed, _rates(rng))
    durability = rng.choice([Durability.COORDINATOR, Durability.STORAGE])
    logging.disable()
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()
    gc.disable()  # what it finalizes, and when, would depend on what ran before
    with installed(world), faultpoints.arm(lambda name: world.point(f"at {name}")):
        options = msgspec.structs.replace(OPTIONS, durability=durability, background=rng.random() < 0.2)
        store = Store(world, options)
        try:
            _Trial(store, rng, cycles).run()
        except Violation as violation:
            raise Violation(f"seed {seed}: {violation}\n{world.tail()}") from violation
        except Exception as error:
            raise Violation(f"seed {seed}: {type(error).__name__}: {error}\n{world.tail()}") from error
        finally:
            world.stop()
            logging.disable(logging.NOTSET)
            gc.enable()
            gc.collect()
    return world


def _rates(rng: random.Random) -> Rates:
    return Rates(
        switch=rng.choice((0.1, 0.4, 0.7)),
        crash=rng.choice((0.008, 0.015, 0.03)),
        pause=rng.choice((0.0, 0.0005, 0.002)),
        leap=rng.choice((0.0, 0.001, 0.004)),
        fail=rng.choice((0.0, 0.0, 0.01, 0.03)),
    )


class _Trial:
    """The life of one store.

    Args:
        store: It.
        rng: Decides what the world does to all processes at once.
        cycles: How often a process is to recover from a crash.
    """

    def __init__(self, store: Store, rng: random.Random, cycles: int) -> None:
        self._store = store
        self._world = store.world
        self._rng = rng
        self._cycles = cycles
        self._lives: dict[int, Life] = {}
        self._crashed: dict[int, bool] = {}
        self._age = 0
        self._disasters = rng.choice((0.0, 0.02, 0.05))
        self._backup: tuple[tuple[Any, ...], str, int] | None = None

    def run(self) -> None:
        world = self._world
        for slot in range(self._rng.choice(_SLOTS)):
            world.immortal(f"slot{slot}", partial(self._keep_running, slot))
        world.run(lambda: world.counts["cycles"] >= self._cycles)
        self._end()

    def _keep_running(self, slot: int) -> None:
        """Start the process of a slot again and again."""
        world, store = self._world, self._store
        while True:
            while store.must_recover and slot:
                world.sleep(_DOWN)
            self._age += 1
            process = Process(f"p{slot}-{self._age}")
            life = self._lives[slot] = Life(store, process, partial(self._recovered, slot))
            world.join(world.spawn("main", life.run, process))
            self._crashed[slot] = self._crashed.get(slot, False) or process.crashed
            store.retries += [intent for intent in life.writing if intent.wal_id]
            roll = self._rng.random()
            if roll < self._disasters:
                self._lose_coordinator()
            elif roll < 0.1:
                store.wall_offset = self._rng.choice(_OFFSETS)
            elif roll < 0.15:
                store.cluster.compact(store.cluster.revision - self._rng.randrange(20))
            elif roll < 0.2 and store.truth.current is not None:
                history = store.truth.current
                self._backup = store.cluster.backup(), history.record.lineage, len(history.wals)
            world.sleep(self._rng.random() * _DOWN)

    def _recovered(self, slot: int) -> None:
        if self._crashed.get(slot):
            self._crashed[slot] = False
            self._world.counts["cycles"] += 1

    def _lose_coordinator(self) -> None:
        """Crash everything; then empty the coordinator, or put an older state of it back."""
        store, history = self._store, self._store.truth.current
        for life in self._lives.values():
            self._world.kill(life.process)
        cluster = Cluster(f"coordinator {self._age}", lambda: self._world.now)
        if self._backup is None or self._rng.random() < 0.5:
            self._backup = None
            store.must_recover = store.was_refused = False
            self._world.counts["coordinators lost"] += 1
        else:
            backup, lineage, reached = self._backup
            if history is None or history.durable <= (reached if history.record.lineage == lineage else 0):
                return  # nothing in storage tells of what was lost
            cluster.identity = store.cluster.identity
            cluster.restore(backup)
            store.must_recover, store.was_refused = True, False
            self._world.counts["coordinators set back"] += 1
        store.cluster = cluster
        store.truth.lost_coordinator(cluster)

    def _end(self) -> None:
        """Open the store once more without trouble, then from its storage alone, and check all that is stored."""
        world, store = self._world, self._store
        world.set_rates(Rates())
        for lost in (False, True):
            for life in self._lives.values():
                world.kill(life.process)
            self._lives.clear()
            world.stop()
            if lost:
                self._backup = None
                self._lose_coordinator()
            process = Process("last", mortal=False)
            life = Life(store, process, lambda: None)
            task = world.spawn("main", life.look, process)
            world.run(lambda task=task: task.done)


CAMPAIGN = Campaign("simulation", "crashes and recoveries in worlds in memory", trial)
