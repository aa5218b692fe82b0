"""Prometheus metrics: counts and durations of requests, and the state of store and service at the scrape."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agola_core.__about__ import __version__
from agola_core.errors import AgolaError
from agola_http.server.state import State

MEDIA_TYPE = CONTENT_TYPE_LATEST
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one server.

    Args:
        state: The state that all handlers share.
        streams: Returns how many streams and uploads are open.
    """

    def __init__(self, state: State, streams: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "agola_http_requests",
            "Answered requests.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "agola_http_request_seconds", "How long requests took, streams to their end.", ("method", "route"),
            buckets=_BUCKETS, registry=self._registry,
        )  # fmt: skip
        Gauge("agola_http_streams", "Open streams and uploads.", registry=self._registry).set_function(streams)
        info = Gauge("agola_build_info", "What runs.", ("version",), registry=self._registry)
        info.labels(__version__).set(1)
        self._registry.register(_Parts(state))

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; its route is one of the table's, so that clients cannot create series."""
        known = method if method in {"GET", "HEAD", "POST", "PUT", "DELETE"} else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(known, route).observe(seconds)

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Parts(Collector):
    """Collects the state of the parts at each scrape."""

    def __init__(self, state: State) -> None:
        self._state = state

    def describe(self) -> Iterator[Metric]:
        """Return nothing, so that nothing is collected before the first scrape."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the state of the store, and of the run service while it serves."""
        try:
            yield from self._store()
            store = 1
        except AgolaError:
            store = 0
        yield _gauge("agola_store_up", "Whether the store answers.", store)
        try:
            yield from self._runs()
            service = 1
        except AgolaError:
            service = 0
        yield _gauge("agola_runservice_up", "Whether the run service serves: not in maintenance mode.", service)

    def _store(self) -> Iterator[Metric]:
        status = self._state.datamanager.status()
        yield _gauge("agola_store_uncheckpointed_wals", "WALs since the checkpoint.", status.uncheckpointed_wals)
        yield _gauge("agola_store_uncheckpointed_bytes", "Their bytes.", status.uncheckpointed_bytes)
        yield _gauge("agola_store_data_files", "Data files of the checkpoint.", status.data_files)
        yield _gauge("agola_store_data_bytes", "Their bytes.", status.data_bytes)
        yield _gauge("agola_store_manifest", "The checkpoint's number.", status.manifest)
        yield _gauge("agola_store_instances", "Processes that have the store open.", len(status.instances))
        loops = GaugeMetricFamily("agola_store_loop_up", "Whether a loop of the store runs.", labels=["loop"])
        for name, alive in status.loops.items():
            loops.add_metric([name], alive)
        yield loops

    def _runs(self) -> Iterator[Metric]:
        service = self._state.service
        runs = GaugeMetricFamily("agola_runs_active", "Runs that are not archived yet.", labels=["phase"])
        for phase, count in sorted(Tally(run.phase.value for run in service.active_runs()).items()):
            runs.add_metric([phase], count)
        yield runs
        yield _gauge("agola_executors", "Executors that have reported themselves.", len(service.executors()))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
