"""Runs campaigns for some minutes, prints what they counted, and adds it to the ledger."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable

from tests.simulation import campaign as simulation
from tests.soak import ledger, rot
from tests.soak.attacks import campaign as attack
from tests.soak.disks import errors, full_disk, power
from tests.soak.histories import concurrent, nemesis
from tests.soak.parsers import coverage, fuzz
from tests.soak.processes import clock, kill, kill_remote, zombie, zombie_remote
from tests.soak.trial import Campaign, Skipped, Violation

_MODULES = (
    simulation,
    kill,
    kill_remote,
    zombie,
    zombie_remote,
    power,
    errors,
    full_disk,
    clock,
    concurrent,
    fuzz,
    coverage,
    rot,
    nemesis,
    attack,
)
CAMPAIGNS = {module.CAMPAIGN.name: module.CAMPAIGN for module in _MODULES}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CAMPAIGNS)}; all by default")
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("SOAK_MINUTES") or 5))
    parser.add_argument("--seed", type=int, help="play one trial again, or with --trials begin with this one")
    parser.add_argument("--trials", type=int, help="this many instead of for minutes, and nothing for the ledger")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.names) - CAMPAIGNS.keys()
    if unknown:
        parser.error(f"no campaign {', '.join(sorted(unknown))}; there are {', '.join(CAMPAIGNS)}")
    campaigns = [CAMPAIGNS[name] for name in chosen.names or CAMPAIGNS]
    if chosen.seed is not None or chosen.trials is not None:
        seed, trials = chosen.seed or 0, chosen.trials or 1
        return max([_run(campaign, lambda it: _play(it, seed, trials)) for campaign in campaigns])
    share = chosen.minutes * 60 / len(campaigns)
    return max([_run(campaign, lambda it: _soak(it, share)) for campaign in campaigns])


def _run(campaign: Campaign, run: Callable[[Campaign], int]) -> int:
    try:
        return run(campaign)
    except Skipped as reason:
        print(f"{campaign.name}: skipped: {reason}", flush=True)
        return 0


def _play(campaign: Campaign, seed: int, trials: int) -> int:
    counts: Counter[str] = Counter()
    violations = 0
    for number in range(seed, seed + trials):
        violations += len(_try(campaign, number, counts))
    _print(campaign, counts, counts, violations, seed)
    return 1 if violations else 0


def _soak(campaign: Campaign, seconds: float) -> int:
    end = time.monotonic() + seconds
    first = seed = random.SystemRandom().randrange(1 << 40)
    counts: Counter[str] = Counter()
    violations: list[str] = []
    while time.monotonic() < end:
        violations += _try(campaign, seed, counts)
        seed += 1
    _print(campaign, counts, ledger.add(campaign.name, counts, violations), len(violations), first)
    return 1 if violations else 0


def _try(campaign: Campaign, seed: int, counts: Counter[str]) -> list[str]:
    counts["trials"] += 1
    try:
        counts.update(campaign.trial(seed))
    except Violation as violation:
        print(f"{campaign.name}: VIOLATION: play it again with --seed {seed}: {violation}", flush=True)
        return [f"--seed {seed}: {violation}"]
    return []


def _print(campaign: Campaign, counts: Counter[str], total: Counter[str], violations: int, seed: int) -> None:
    print(f"{campaign.name}: {campaign.goal}")
    for name, count in sorted(counts.items()):
        print(f"  {name}: {count:,} ({total[name]:,} in all)")
    print(f"  violations: {violations}; from seed {seed}", flush=True)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # a seed of the simulation plays the same where hashes are the same
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONHASHSEED": "0"})
    sys.exit(main(sys.argv[1:]))
