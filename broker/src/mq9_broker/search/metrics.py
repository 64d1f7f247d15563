"""Numbers of the search process for `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from mq9_broker.search.process import SearchProcess


def search_metrics(search: SearchProcess) -> Iterator[Metric]:
    """Everything that is known of the process; what it has not said yet is left out."""
    yield GaugeMetricFamily(
        "mq9_search_waiting_queries", "Searches that wait for an answer.", search.questions
    )
    yield CounterMetricFamily(
        "mq9_search_process_restarts", "Times that the search process ended unexpectedly.", search.restarts
    )
    status = search.status
    if status is None:
        return
    yield GaugeMetricFamily(
        "mq9_search_waiting_agents",
        "Agents in the queue of the embedder; the fast vectors serve meanwhile.",
        status.waiting,
    )
    yield GaugeMetricFamily("mq9_search_words", "Different words in the index.", status.words)
    yield CounterMetricFamily(
        "mq9_search_embedder_failures", "Requests to the endpoint that failed.", status.embedder_failures
    )
    yield GaugeMetricFamily(
        "mq9_search_resident_memory_bytes", "Memory of the search process.", status.resident_bytes
    )
