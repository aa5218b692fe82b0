"""The campaign: worlds in which the processes of one store crash, are paused, and lose calls and answers."""

from __future__ import annotations

import random
from collections import Counter

import msgspec

from agola_core import Durability, faultpoints
from tests.simulation.life import OPTIONS, Life, Store
from tests.simulation.scheduler import Process, Rates, World
from tests.simulation.threads import installed
from tests.soak.trial import Campaign, Violation

CYCLES = 60
_SLOTS = (1, 2, 2, 3)
_DOWN = 0.5

_QUIET = Rates()


def trial(seed: int, cycles: int = CYCLES) -> Counter[str]:
    """Run one world until its processes have crashed, and recovered, some times.

    Raises:
        Violation: Something acknowledged was lost, something refused was seen, or any other promise was not kept.
    """
    return play(seed, cycles).counts


def play(seed: int, cycles: int = CYCLES) -> World:
    """Run the world of a seed, and return it."""
    rng = random.Random(seed)
    world = World(seed, _rates(rng))
    durability = rng.choice([Durability.COORDINATOR, Durability.STORAGE])
    with installed(world), faultpoints.arm(lambda name: world.point(f"at {name}")):
        store = Store(world, msgspec.structs.replace(OPTIONS, durability=durability))
        try:
            _Trial(store, rng, cycles).run()
        except Violation as violation:
            raise Violation(f"seed {seed}: {violation}\n{world.tail()}") from violation
        except Exception as error:
            raise Violation(f"seed {seed}: {type(error).__name__}: {error}\n{world.tail()}") from error
        finally:
            world.end()
    return world


def _rates(rng: random.Random) -> Rates:
    return Rates(
        switch=rng.choice((0.1, 0.4, 0.7)),
        crash=rng.choice((0.004, 0.008, 0.015)),
        pause=rng.choice((0.0, 0.0005, 0.002)),
        leap=rng.choice((0.0, 0.001, 0.004)),
        fail=rng.choice((0.0, 0.0, 0.01, 0.03)),
    )


class _Trial:
    def __init__(self, store: Store, rng: random.Random, cycles: int) -> None:
        self._store = store
        self._world = store.world
        self._rng = rng
        self._cycles = cycles
        self._lives: dict[str, Life] = {}
        self._age = 0

    def run(self) -> None:
        world, store = self._world, self._store
        for slot in range(self._rng.choice(_SLOTS)):
            world.immortal(f"slot{slot}", lambda slot=slot: self._keep_running(slot))
        world.run(lambda: world.counts["crashes"] >= self._cycles)
        for life in self._lives.values():
            world.kill(life.process)
        store.over = True
        world.set_rates(_QUIET)
        world.counts["cycles"] = world.counts["crashes"]

    def _keep_running(self, slot: int) -> None:
        world = self._world
        while not self._store.over:
            self._age += 1
            process = Process(f"p{slot}-{self._age}")
            life = self._lives[f"p{slot}"] = Life(self._store, process)
            task = world.spawn("main", life.run, process)
            while not process.dead and not task.done:
                task.joining.append(world.current)
                world.block(None)
            self._store.retries += [intent for intent in life.writing if intent.wal_id]
            world.sleep(self._rng.random() * _DOWN)


CAMPAIGN = Campaign("simulation", "crashes and recoveries in worlds in memory", trial)
