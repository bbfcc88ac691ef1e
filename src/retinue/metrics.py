"""Counters, gauges and histograms, and the Prometheus text they are read as.

Everything here is plain arithmetic in memory: no clock, no lock (one event loop writes and reads). A metric with labels
hands out one child per combination of label values; keep the child where the path is hot. Label values must come from
a small fixed set (a route, a status, a member), never from a request, or memory would grow with what clients send.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Generic, TypeVar

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From a tenth of a millisecond (a write on one machine) to the longest deadline that a request may ask for.
DURATION_BUCKETS_S = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    60.0,
)

Sample = tuple[str, tuple[tuple[str, str], ...], float]

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        """Count `amount` more, which must not be negative."""
        self.value += amount

    def samples(self, name: str) -> Iterator[Sample]:
        """The one line of this counter."""
        yield name, (), self.value


class Gauge:
    """A number that goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def set(self, value: float) -> None:
        """The number is now `value`."""
        self.value = value

    def add(self, amount: float = 1.0) -> None:
        """The number is now `amount` more, or less for a negative amount."""
        self.value += amount

    def samples(self, name: str) -> Iterator[Sample]:
        """The one line of this gauge."""
        yield name, (), self.value


class Histogram:
    """How often observations fell at or below each bound, their number and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = DURATION_BUCKETS_S) -> None:
        assert list(bounds) == sorted(set(bounds)), "the bounds of a histogram must rise"
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def samples(self, name: str) -> Iterator[Sample]:
        """Cumulative buckets, sum and count, as Prometheus wants them."""
        running = 0
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            running += count
            yield f"{name}_bucket", (("le", _number(bound)),), running
        yield f"{name}_sum", (), self.total
        yield f"{name}_count", (), running


Child = TypeVar("Child", Counter, Gauge, Histogram)


class Family(Generic[Child]):
    """The children of one metric, one for each combination of label values."""

    def __init__(
        self, kind: str, name: str, help_text: str, labels: tuple[str, ...], make: Callable[[], Child]
    ) -> None:
        self.kind = kind
        self.name = name
        self.help_text = help_text
        self.labels = labels
        self._make: Callable[[], Child] = make
        self._children: dict[tuple[str, ...], Child] = {}

    def labelled(self, *values: str) -> Child:
        """The child of these label values, made when it is new."""
        child = self._children.get(values)
        if child is None:
            assert len(values) == len(self.labels), f"{self.name} takes the labels {self.labels}"
            child = self._children[values] = self._make()
        return child

    def lines(self) -> Iterator[str]:
        """The text of this metric."""
        yield from _head(self.name, self.help_text, self.kind)
        for values, child in sorted(self._children.items()):
            own = tuple(zip(self.labels, values, strict=True))
            for name, extra, value in child.samples(self.name):
                yield _line(name, own + extra, value)


class Registry:
    """All metrics of one node, in the order in which they were made."""

    def __init__(self) -> None:
        self._families: dict[str, Family[Counter] | Family[Gauge] | Family[Histogram]] = {}
        self._sources: list[Callable[[], Iterable[Reading]]] = []

    def counter(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> Family[Counter]:
        """A new family of counters; its name should end in `_total`."""
        family = Family("counter", self._free(name), help_text, labels, Counter)
        self._families[name] = family
        return family

    def gauge(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> Family[Gauge]:
        """A new family of gauges."""
        family = Family("gauge", self._free(name), help_text, labels, Gauge)
        self._families[name] = family
        return family

    def histogram(
        self, name: str, help_text: str, labels: tuple[str, ...] = (), bounds: Sequence[float] = DURATION_BUCKETS_S
    ) -> Family[Histogram]:
        """A new family of histograms; its name should end in its unit."""
        family = Family("histogram", self._free(name), help_text, labels, partial(Histogram, bounds))
        self._families[name] = family
        return family

    def read_from(self, source: Callable[[], Iterable[Reading]]) -> None:
        """Ask `source` for further gauges whenever the text is rendered."""
        self._sources.append(source)

    def render(self) -> bytes:
        """The whole text, in UTF-8."""
        lines = [line for family in self._families.values() for line in family.lines()]
        described: set[str] = set()
        for reading in sorted(
            (reading for source in self._sources for reading in source()), key=lambda found: found.name
        ):
            if reading.name not in described:
                described.add(reading.name)
                lines.extend(_head(reading.name, reading.help_text, "gauge"))
            lines.append(_line(reading.name, reading.labels, reading.value))
        return ("\n".join(lines) + "\n").encode()

    def _free(self, name: str) -> str:
        assert _NAME.fullmatch(name), f"{name} is no name for a metric"
        assert name not in self._families, f"the metric {name} is there already"
        return name


class Reading:
    """One gauge as it stands at this moment."""

    __slots__ = ("help_text", "labels", "name", "value")

    def __init__(self, name: str, help_text: str, value: float, labels: tuple[tuple[str, str], ...] = ()) -> None:
        self.name = name
        self.help_text = help_text
        self.value = value
        self.labels = labels


def _head(name: str, help_text: str, kind: str) -> tuple[str, str]:
    escaped = help_text.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {name} {escaped}", f"# TYPE {name} {kind}"


def _line(name: str, labels: tuple[tuple[str, str], ...], value: float) -> str:
    if not labels:
        return f"{name} {_number(value)}"
    inner = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{{{inner}}} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
