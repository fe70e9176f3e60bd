"""Families of samples: a name, what it means, and its values with their labels."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest

Kind = Literal["counter", "gauge", "summary", "info"]

_ENDINGS: dict[Kind, str] = {"counter": "_total", "info": "_info", "gauge": "", "summary": ""}


@dataclass(frozen=True)
class Family:
    """What one name means; a counter ends with ``_total`` and an info with ``_info``."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


@dataclass
class Samples:
    """Samples by family; those of several sessions can be put together."""

    _metrics: dict[str, Metric] = field(default_factory=dict)

    def add(self, family: Family, value: float | bool | None, *labels: str) -> None:
        """Add a sample with its labels in the order of the family; nothing where the value is unset.

        Raises
        ------
        ValueError
            The labels are not as many as the family has.
        """
        if value is None:
            return
        ending = _ENDINGS[family.kind]
        name = family.name.removesuffix(ending)
        metric = self._metrics.setdefault(name, Metric(name, family.help, family.kind))
        metric.add_sample(family.name, dict(zip(family.labels, labels, strict=True)), float(value))

    def extend(self, other: "Samples") -> None:
        """Add the samples of others; what a name means is said by whoever used it first."""
        for metric in other.collect():
            mine = self._metrics.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            mine.samples.extend(metric.samples)

    def __iter__(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Give every sample: name, labels, value."""
        for metric in self._metrics.values():
            for sample in metric.samples:
                yield sample.name, sample.labels, sample.value

    def collect(self) -> Iterable[Metric]:
        """Return the families, as the library of Prometheus asks for them."""
        return self._metrics.values()

    def text(self) -> str:
        """Return all of them in the text format of Prometheus."""
        return generate_latest(self).decode()
