"""What the service counts, as Prometheus reads it.

What enters: increments, from the event loop only. What leaves: the text of ``/metrics``. The promise: labels come from
fixed sets (routes, statuses, models), so no series is ever named after a person and their number is bounded.

Weighed: ``prometheus_client``'s own counters. BentoML switches them to files shared between workers, in one directory
that every service of a machine empties when it starts. One worker needs none of that: plain integers, and its text
format.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Probe = Callable[[], float]
"""Reads a number that somebody else keeps."""
Counts = Counter[tuple[str, ...]]


class Meters(Collector):
    """All counters of one service."""

    def __init__(self) -> None:
        self.requests: Counts = Counter()
        """By method, route and status."""
        self.scores: Counter[str] = Counter()
        """Subscribers answered, by status."""
        self.admitted, self.shed = (Counter[str](send=0, bulk=0, events=0) for _ in range(2))
        self.degraded = Counter[str](send=0, bulk=0)
        """Requests by class: let in, turned away, answered with priors because scores would have been late."""
        self.store_errors = 0
        """Requests answered without the online store because it could not be read."""
        self.events: Counts = Counter()
        """Events posted, by provider and what became of them."""
        self.refused_events: Counts = Counter()
        """Requests with events that were refused, by provider and reason."""
        self._latencies: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}
        self._probes: list[tuple[type[CounterMetricFamily | GaugeMetricFamily], str, str, Probe]] = []
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request and how long it took."""
        self.requests[method, route, str(status)] += 1
        counts = self._latencies.setdefault(route, [0] * (len(LATENCY_BUCKETS_S) + 1))
        counts[bisect_left(LATENCY_BUCKETS_S, seconds)] += 1
        self._seconds[route] = self._seconds.get(route, 0.0) + seconds

    def watch_count(self, name: str, meaning: str, probe: Probe) -> None:
        """Publish a number that only grows and is kept elsewhere."""
        self._probes.append((CounterMetricFamily, name, meaning, probe))

    def watch_level(self, name: str, meaning: str, probe: Probe) -> None:
        """Publish a number that rises and falls and is kept elsewhere."""
        self._probes.append((GaugeMetricFamily, name, meaning, probe))

    def to_text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        yield _counter("inbox_requests", "Answered requests.", ("method", "route", "status"), self.requests)
        yield _counter("inbox_scores", "Answered subscribers.", ("status",), {(s,): n for s, n in self.scores.items()})
        for name, meaning, counts in (
            ("inbox_admitted", "Requests let in.", self.admitted),
            ("inbox_shed", "Requests turned away with 429.", self.shed),
            ("inbox_degraded", "Requests answered with priors to keep a deadline.", self.degraded),
        ):
            yield _counter(name, meaning, ("class",), {(c,): n for c, n in counts.items()})
        yield _counter("inbox_events", "Events posted.", ("provider", "outcome"), self.events)
        yield _counter("inbox_events_refused", "Posts refused.", ("provider", "reason"), self.refused_events)
        yield CounterMetricFamily("inbox_store_errors", "Requests answered without the store.", self.store_errors)
        yield self._latency()
        for family, name, meaning, probe in self._probes:
            yield family(name, meaning, value=probe())

    def _latency(self) -> Metric:
        family = HistogramMetricFamily("inbox_request_seconds", "From first to last byte.", labels=["route"])
        bounds = [*map(str, LATENCY_BUCKETS_S), "+Inf"]
        for route, counts in self._latencies.items():
            family.add_metric([route], list(zip(bounds, accumulate(counts), strict=True)), self._seconds[route])
        return family


def _counter(name: str, meaning: str, labels: tuple[str, ...], counts: Mapping[tuple[str, ...], int]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family
