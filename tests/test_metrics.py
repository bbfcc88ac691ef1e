"""Counters, gauges, histograms and their Prometheus text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.metrics import Histogram, Reading, Registry


def lines_of(registry: Registry) -> list[str]:
    return registry.render().decode().splitlines()


def test_a_counter() -> None:
    registry = Registry()
    family = registry.counter("requests_total", "Requests\nby route", ("route", "status"))
    family.labelled("/kv", "200").add()
    family.labelled("/kv", "200").add(2)
    family.labelled('a"b\\c\n', "404").add()
    assert lines_of(registry) == [
        "# HELP requests_total Requests\\nby route",
        "# TYPE requests_total counter",
        'requests_total{route="/kv",status="200"} 3',
        'requests_total{route="a\\"b\\\\c\\n",status="404"} 1',
    ]


def test_a_gauge_goes_both_ways() -> None:
    registry = Registry()
    gauge = registry.gauge("in_flight", "Now").labelled()
    gauge.set(5)
    gauge.add(-2.5)
    assert lines_of(registry)[-1] == "in_flight 2.5"


def test_a_histogram_is_cumulative() -> None:
    registry = Registry()
    family = registry.histogram("seconds", "Time", ("route",), bounds=(0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        family.labelled("a").observe(value)
    assert lines_of(registry)[2:] == [
        'seconds_bucket{route="a",le="0.1"} 2',
        'seconds_bucket{route="a",le="1"} 3',
        'seconds_bucket{route="a",le="+Inf"} 4',
        'seconds_sum{route="a"} 7.65',
        'seconds_count{route="a"} 4',
    ]


@given(st.lists(st.floats(min_value=0, max_value=100)))
def test_every_observation_falls_into_one_bucket(values: list[float]) -> None:
    histogram = Histogram((0.5, 1.0, 50.0))
    for value in values:
        histogram.observe(value)
    samples = list(histogram.samples("h"))
    for (_, ((_, bound),), count), limit in zip(samples[:4], (0.5, 1.0, 50.0, math.inf), strict=True):
        assert count == sum(value <= limit for value in values), bound
    assert samples[-1][2] == len(values)


def test_readings_are_taken_when_the_text_is_rendered() -> None:
    registry = Registry()
    value = 1.0
    registry.read_from(lambda: [Reading("b", "B", value, (("node", "x"),)), Reading("a", "A", math.nan)])
    registry.read_from(lambda: [Reading("b", "B", -math.inf)])
    value = 2.0
    assert lines_of(registry) == [
        "# HELP a A",
        "# TYPE a gauge",
        "a NaN",
        "# HELP b B",
        "# TYPE b gauge",
        'b{node="x"} 2',
        "b -Inf",
    ]


def test_mistakes_are_found_at_once() -> None:
    registry = Registry()
    family = registry.counter("a_total", "A", ("x",))
    with pytest.raises(AssertionError):
        registry.gauge("a_total", "again")
    with pytest.raises(AssertionError):
        registry.counter("no name", "B")
    with pytest.raises(AssertionError):
        family.labelled("1", "2")
    with pytest.raises(AssertionError):
        Histogram((2.0, 1.0))
