"""The ledger as Prometheus metrics. Labels are names from the configuration and states, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from dicom_node.config import Config
from dicom_node.domain.job import State
from dicom_node.errors import LedgerUnavailable
from dicom_node.store.archive import Archive
from dicom_node.store.counts import Counts, count
from dicom_node.web.single_flight import SingleFlight

COUNTED_WITHIN_S = 10.0
"""Later than this, a scrape goes without the ledger's numbers."""


class LedgerCollector(Collector):
    """Counts at every scrape, so that restarts and several processes never make the numbers wrong."""

    def __init__(
        self,
        engine: Engine,
        archive: Archive,
        config: Config,
        receiver_alive: Callable[[], bool],
        clock: Callable[[], datetime],
    ) -> None:
        self._archive = archive
        self._config = config
        self._receiver_alive = receiver_alive
        self._counts: SingleFlight[Counts | None] = SingleFlight(lambda: count(engine, clock()))

    def describe(self) -> list[Metric]:
        """Nothing: registering must not ask the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield _gauge("receiver_up", "1 when associations are accepted", float(self._receiver_alive()))
        yield from self._disk()
        try:
            counts = self._counts.within(COUNTED_WITHIN_S, else_=None)
        except LedgerUnavailable:
            counts = None
        if counts is None:
            yield _gauge("database_up", "1 when the ledger answers", 0.0)
            return
        yield _gauge("database_up", "1 when the ledger answers", 1.0)
        yield from self._ledger(counts)

    def _disk(self) -> Iterator[Metric]:
        reserve = self._config.receive.reserve_mb * 1e6
        yield _gauge("reserve_bytes", "Free space that receiving never uses", reserve)
        try:
            yield _gauge("free_bytes", "Free space on the archive's disk", float(self._archive.free_bytes()))
        except OSError:
            return  # an absent number is the truth; /ready says why

    def _ledger(self, counts: Counts) -> Iterator[Metric]:
        pipelines = [route.pipeline for route in self._config.route]
        destinations = [name for route in self._config.route for name in route.to]
        yield _counter("instances_received", "Instances acknowledged and kept", counts.instances)
        yield _counter("instance_conflicts", "Same SOP Instance UID, other bytes", counts.conflicts)
        yield _counter("instances_unreadable", "Instances whose header could not be read", counts.unreadable)
        yield _by_state("jobs", "Jobs", "pipeline", counts.jobs, pipelines)
        yield _by_state(
            "deliveries", "Result objects on their way", "destination", counts.deliveries, destinations
        )
        yield _gauge("queue_age_seconds", "Age of the oldest unfinished job", counts.job_age_s)
        yield _ages(counts.delivery_age_s, destinations)


def _gauge(name: str, help_: str, value: float) -> Metric:
    return GaugeMetricFamily(f"dicom_node_{name}", help_, value=value)


def _counter(name: str, help_: str, value: int) -> Metric:
    return CounterMetricFamily(f"dicom_node_{name}", help_, value=value)


def _by_state(
    name: str, help_: str, label: str, numbers: Mapping[tuple[str, State], int], known: Sequence[str]
) -> Metric:
    """Every state of everything configured, zeros too: an alert on FAILED works before the first failure."""
    family = GaugeMetricFamily(f"dicom_node_{name}", f"{help_} by {label} and state", labels=[label, "state"])
    for what in sorted({*known, *(what for what, _ in numbers)}):
        for state in State:
            family.add_metric([what, state.value], numbers.get((what, state), 0))
    return family


def _ages(ages_s: Mapping[str, float], known: Sequence[str]) -> Metric:
    family = GaugeMetricFamily(
        "dicom_node_delivery_age_seconds", "Age of the oldest undelivered object", labels=["destination"]
    )
    for destination in sorted({*known, *ages_s}):
        family.add_metric([destination], ages_s.get(destination, 0.0))
    return family
