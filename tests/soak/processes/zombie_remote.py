"""R4 on servers: the campaign `zombie`, with the coordinator in an etcd, the storage in S3, or both, by the seed."""

from __future__ import annotations

import random
from collections import Counter

from tests.soak.backends import choose
from tests.soak.processes import zombie
from tests.soak.trial import Campaign


def trial(seed: int) -> Counter[str]:
    """Stop some processes of one store, let others go on, and resume them (see `zombie.trial`).

    Raises:
        Skipped: A server is missing.
        Violation: What the store holds is not what was acknowledged.
    """
    name, make_store = choose(random.Random(seed), zombie.OPTIONS, hours=0)
    counts = zombie.trial(seed, make_store)
    counts[f"zombies on {name}"] = counts["zombies"]
    return counts


CAMPAIGN = Campaign("zombie-remote", "processes stopped past their leases and resumed, on etcd and S3", trial)
