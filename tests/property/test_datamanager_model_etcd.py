"""The datamanager's state machine (see `test_datamanager_model`) on a real etcd: a slice."""

import itertools
import uuid

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

import agola_core
from tests.property.test_datamanager_model import OPTIONS, TYPES, StoreMachine


def test_two_datamanagers_on_etcd_agree_with_the_model(agola_etcd):
    stores = itertools.count()
    run = uuid.uuid4().hex

    class EtcdStoreMachine(StoreMachine):
        def __init__(self):
            super().__init__()
            self.wipe_coordinator()

        def wipe_coordinator(self):
            self.url = agola_etcd.url(f"model-{run}/{next(stores)}")

        def restore_an_old_coordinator(self):
            """No rule here: it copies SQLite's files. The campaign `nemesis` restores snapshots of etcd."""

        def open_one(self, **options):
            return agola_core.open(
                storage=str(self.path / "storage"), coordinator=self.url, data_types=TYPES, options=OPTIONS, **options
            )

    run_state_machine_as_test(
        EtcdStoreMachine,
        settings=settings(
            max_examples=8, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
