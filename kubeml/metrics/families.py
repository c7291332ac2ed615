"""Metric families from plain numbers, for the collectors."""

from collections.abc import Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from kubeml.metrics.histogram import Histogram

#: Label values to a value; an unknown value (None) has no series.
Rows = Mapping[tuple[str, ...], float | None]


def gauge(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """Return a family of gauges."""
    return _filled(GaugeMetricFamily(name, text, labels=labels), rows)


def counter(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """Return a family of counters; their series end in ``_total``."""
    return _filled(CounterMetricFamily(name, text, labels=labels), rows)


def histogram(
    name: str, text: str, labels: Sequence[str], rows: Mapping[tuple[str, ...], Histogram]
) -> Metric:
    """Return a family of histograms."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, one in rows.items():
        # The buckets are read first: the sum may have one value more by then, as in any scrape.
        family.add_metric(values, one.buckets(), one.sum)
    return family


def _filled(family: GaugeMetricFamily | CounterMetricFamily, rows: Rows) -> Metric:
    for values, value in rows.items():
        if value is not None:
            family.add_metric(values, value)
    return family
