"""Metric families from plain numbers."""

from collections.abc import Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from kubeml.metrics.histogram import Histogram

#: Label values to a value; one that is not known (None) has no series.
Rows = Mapping[tuple[str, ...], float | None]


def gauge(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """A family of gauges."""
    return _filled(GaugeMetricFamily(name, text, labels=labels), rows)


def counter(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """A family of counters; their series end in ``_total``."""
    return _filled(CounterMetricFamily(name, text, labels=labels), rows)


def histogram(
    name: str, text: str, labels: Sequence[str], rows: Mapping[tuple[str, ...], Histogram]
) -> Metric:
    """A family of histograms."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, one in rows.items():
        # Read once: the sum may be that of a value more, as in any scrape.
        family.add_metric(values, one.buckets(), one.sum)
    return family


def _filled(family: GaugeMetricFamily | CounterMetricFamily, rows: Rows) -> Metric:
    for values, value in rows.items():
        if value is not None:
            family.add_metric(values, value)
    return family
