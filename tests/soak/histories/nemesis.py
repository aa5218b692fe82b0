"""R5: a three-member etcd under attack with writers on it (see `etcd_nemesis`), as a campaign."""

import shutil
import tempfile
from collections import Counter
from pathlib import Path

from tests.soak.histories.etcd_nemesis import Event, campaign
from tests.soak.trial import Campaign, Violation


def trial(seed: int) -> Counter[str]:
    """Strike with every kind of event once.

    Raises:
        Violation: Something acknowledged was lost, something refused is there, or the writers stayed stuck.
    """
    directory = Path(tempfile.mkdtemp(prefix="agola-soak-"))
    try:
        outcome = campaign(directory, seed=seed, events=len(Event))
    except AssertionError as error:
        raise Violation(f"seed {seed}: {error}") from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    counts = Counter(event.value for event in outcome.events)
    counts.update(
        events=len(outcome.events),
        acknowledged=outcome.acknowledged,
        refused=outcome.refused,
        unknown=outcome.unknown,
    )
    return counts


CAMPAIGN = Campaign("nemesis", "events against a three-member etcd with writers on it", trial)
