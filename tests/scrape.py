"""Reading what a process serves to Prometheus."""

import socket
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

#: Sample name and labels (sorted) to the value.
Scrape = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Exporter:
    """The metrics of one process."""

    def __init__(self, port: int) -> None:
        self.port = port

    def text(self, *, within_s: float = 10) -> str:
        """What it serves now."""
        with urllib.request.urlopen(self._url, timeout=within_s) as answer:  # noqa: S310 - http
            return answer.read().decode()

    def read(self) -> Scrape:
        """The samples that it serves now."""
        return parse(self.text())

    def is_up(self) -> bool:
        """Whether it answers at all."""
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.port}/metrics"


def parse(text: str) -> Scrape:
    """The samples in a page of metrics."""
    samples: Scrape = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples, f"{key} is there twice"
            samples[key] = sample.value
    return samples


def value(scrape: Scrape, name: str, **labels: str) -> float | None:
    """A sample's value; None if it is not there."""
    return scrape.get((name, tuple(sorted(labels.items()))))


def labelled(scrape: Scrape, **labels: str) -> list[str]:
    """Names of the samples that have these labels, whatever else they have."""
    wanted = set(labels.items())
    return sorted({name for name, given in scrape if wanted <= set(given)})
