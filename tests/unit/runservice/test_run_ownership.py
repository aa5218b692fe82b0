"""Services on one store own about equal shares of the runs, whatever their names are."""

import random

from agola_core.runservice.scheduling.run_ownership import first_of
from agola_core.sequence import Sequence


def test_of_sixty_runs_in_a_row_each_of_three_services_owns_some():
    rng = random.Random(1)
    run_ids = [str(Sequence(1764300000, number)) for number in range(60)]
    for _ in range(200):
        names = [f"{rng.randrange(1000, 40000)}-{rng.getrandbits(48):012x}" for _ in range(3)]
        owners = [first_of(names, run_id) for run_id in run_ids]
        assert min(owners.count(name) for name in names) >= 5, names
