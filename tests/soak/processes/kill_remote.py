"""R1 on servers: the campaign `kill`, with the coordinator in an etcd, the storage in S3, or both, by the seed."""

from __future__ import annotations

import random
from collections import Counter

from tests.soak.backends import choose
from tests.soak.processes import kill
from tests.soak.trial import Campaign

CYCLES = 5


def trial(seed: int) -> Counter[str]:
    """Run one store's life (see `kill.trial`).

    Raises:
        Skipped: A server is missing.
        Violation: Something acknowledged was lost, something refused was seen, or a repair was needed.
    """
    name, make_store = choose(random.Random(seed))
    counts = kill.trial(seed, make_store, CYCLES)
    counts[f"cycles on {name}"] = counts["cycles"]
    return counts


CAMPAIGN = Campaign("kill-remote", "cycles of kill and recovery at named fault points, on etcd and S3", trial)
