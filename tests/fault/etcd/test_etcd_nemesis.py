"""A slice of the nemesis campaign: each kind of event once, writers on; the rest is for `make soak`."""

import pytest

from tests.soak.histories.etcd_nemesis import Event, campaign


@pytest.mark.timeout(600)
def test_writers_on_a_failing_cluster_lose_nothing_acknowledged(tmp_path, etcd_programs):
    outcome = campaign(tmp_path, seed=20190701, events=len(Event), tell=print)
    print(outcome)
    assert outcome.acknowledged > 0
