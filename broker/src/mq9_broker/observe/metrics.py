"""`/metrics`: everything that is counted, in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from mq9_broker._generated import PROTOCOL_VERSION
from mq9_broker.observe.census import Census
from mq9_broker.observe.meter import BUCKETS, Histogram, Meter
from mq9_broker.shell.counters import Counters
from mq9_broker.version import __version__

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


@dataclass(frozen=True)
class Sources:
    """Where the numbers come from, asked at each scrape.

    Attributes:
        meter: Requests.
        counters: What the shell counts.
        census: The latest census of mailboxes.
        sync_seconds: How long syncs of the store took.
        waiting: FETCHes that wait.
        connections: Clients that are connected.
        subscriptions: Their subscriptions.
        agents: Registered agents.
        store_bytes: Bytes of the store on disk; None = in memory.
        more: Metrics of parts that have their own.
    """

    meter: Meter
    counters: Counters
    census: Callable[[], Census]
    sync_seconds: Histogram
    waiting: Callable[[], int]
    connections: Callable[[], int]
    subscriptions: Callable[[], int]
    agents: Callable[[], int]
    store_bytes: Callable[[], int | None]
    more: Callable[[], Iterator[Metric]] = lambda: iter(())


class Metrics:
    """The registry, and the text of a scrape."""

    def __init__(self, sources: Sources) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_BrokerCollector(sources))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def text(self) -> bytes:
        """The answer to GET /metrics."""
        return generate_latest(self._registry)


class _BrokerCollector(Collector):
    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Everything, as it is now."""
        yield InfoMetricFamily(
            "mq9_broker", "Versions.", {"version": __version__, "protocol": PROTOCOL_VERSION}
        )
        yield from self._requests()
        yield from self._shell()
        yield from self._mailboxes()
        yield from self._parts()
        yield from self._sources.more()

    def _requests(self) -> Iterator[Metric]:
        meter = self._sources.meter
        results = CounterMetricFamily(
            "mq9_requests", "Requests carried out, by operation and result.", labels=("operation", "result")
        )
        seconds = HistogramMetricFamily(
            "mq9_request_seconds",
            "Seconds in shell and engine, of all requests that one read of a socket brought; "
            "what a FETCH waited and a sync took is not in it.",
            labels=("operation",),
        )
        failed: dict[str, int] = {}
        for (operation, code), count in sorted(meter.failed.items()):
            results.add_metric((operation, code), count)
            failed[operation] = failed.get(operation, 0) + count
        for operation, histogram in sorted(meter.durations.items()):
            results.add_metric((operation, "ok"), max(0, histogram.count - failed.get(operation, 0)))
            seconds.add_metric((operation,), *_histogram(histogram))
        yield results
        yield seconds

    def _shell(self) -> Iterator[Metric]:
        counters = self._sources.counters
        yield GaugeMetricFamily("mq9_waiting_fetches", "FETCHes that wait now.", self._sources.waiting())
        ended = CounterMetricFamily("mq9_waits", "FETCHes that waited, by how that ended.", labels=("how",))
        for how, count in sorted(counters.fetches_answered.items()):
            ended.add_metric((how,), count)
        yield ended
        yield CounterMetricFamily(
            "mq9_leased_messages", "Messages handed out under a lease.", counters.leased_messages
        )
        yield CounterMetricFamily(
            "mq9_returns",
            "Times that something became deliverable again to a group: by NACK, or by the end of a lease "
            "or of a delay.",
            counters.returns,
        )
        yield CounterMetricFamily(
            "mq9_dead_letters", "Copies put into dead-letter mailboxes.", counters.dead_letters_delivered
        )
        dropped = CounterMetricFamily(
            "mq9_dead_letters_dropped",
            "Messages that used up their deliveries and went nowhere, by reason.",
            labels=("reason",),
        )
        for reason, count in sorted(counters.dead_letters_dropped.items()):
            dropped.add_metric((reason,), count)
        yield dropped
        yield CounterMetricFamily(
            "mq9_internal_errors", "Requests answered `internal`; the log says why.", counters.internal_errors
        )

    def _mailboxes(self) -> Iterator[Metric]:
        census = self._sources.census()
        yield GaugeMetricFamily("mq9_mailboxes", "Mailboxes, at the latest census.", census.mailboxes)
        messages = GaugeMetricFamily(
            "mq9_messages", "Messages in mailboxes by priority, at the latest census.", labels=("priority",)
        )
        for priority, count in census.messages.items():
            messages.add_metric((priority,), count)
        yield messages
        yield GaugeMetricFamily("mq9_delayed_messages", "Messages that are not yet due.", census.delayed)
        yield GaugeMetricFamily("mq9_message_bytes", "Bytes of all messages.", census.bytes_stored)
        yield GaugeMetricFamily("mq9_groups", "Consumer groups.", census.groups)

    def _parts(self) -> Iterator[Metric]:
        sources = self._sources
        yield GaugeMetricFamily("mq9_connections", "Clients that are connected.", sources.connections())
        yield GaugeMetricFamily("mq9_subscriptions", "Their subscriptions.", sources.subscriptions())
        yield GaugeMetricFamily("mq9_agents", "Registered agents.", sources.agents())
        store_bytes = sources.store_bytes()
        if store_bytes is not None:
            yield GaugeMetricFamily("mq9_store_bytes", "Bytes of the store on disk.", store_bytes)
        sync = HistogramMetricFamily("mq9_sync_seconds", "Seconds that bringing a batch to disk took.")
        sync.add_metric((), *_histogram(sources.sync_seconds))
        yield sync


def _histogram(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    buckets: list[tuple[str, float]] = []
    so_far = 0
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), histogram.counts, strict=True):
        so_far += count
        buckets.append((bound, so_far))
    return buckets, histogram.total
