"""Goal 13: what a write costs as keys, followers and values grow.

    python bench/scaling.py                      # a table, and a picture: .bench/scaling.png

The cost is the CPU time of all nodes together, user and system, divided by the writes that were answered: unlike
throughput it hardly depends on what else the machine does. Keys shall cost nothing; followers and bytes shall cost in
proportion, by a slope that is named.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "src"), str(Path(__file__).resolve().parents[1])]

import msgspec
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.generator import Load
from bench.generator import run as run_load
from bench.memory import fill
from bench.rounds import MET, NOT_MET, Outcome, Plan
from bench.systems.contract import Tools, cpu_seconds
from bench.workshop import PLACE, at_least, console, run_command, write_picture
from retinue.cluster import Cluster
from retinue.errors import EXIT_DONE, ClusterError
from retinue.ports import free_ports

KEYS = (1_000, 10_000, 100_000, 1_000_000)
FOLLOWERS = (1, 2, 3, 5, 7, 9)
VALUE_BYTES = (100, 1_000, 10_000, 30_000, 100_000)
CONNECTIONS = 64
FLAT = 1.25
"""A cost is flat if it grows by no more than a quarter from the smallest to the largest."""
LINEAR = 0.3
"""A cost is linear if no point lies further from a straight line than this share of it."""


class Point(msgspec.Struct, frozen=True):
    """One measurement: the number that grows, and CPU time of all nodes per write."""

    size: int
    cpu_us: float
    per_second: float


class Curve(msgspec.Struct):
    """What grows, the word for one of it, the label of its axis, and its points."""

    what: str
    unit: str
    label: str
    points: list[Point]

    @property
    def growth(self) -> float:
        """The cost of the largest over that of the smallest."""
        return self.points[-1].cpu_us / self.points[0].cpu_us

    def line(self) -> tuple[float, float]:
        """The straight line nearest to the points: slope in µs per unit, and intercept in µs.

        Distances are shares of the cost of a point, and the sum of their squares is least: with plain distances the
        largest sizes alone would decide.
        """
        # Divided by its cost y, each point asks for intercept / y + slope * size / y = 1: two unknowns, least squares.
        rows = [(1 / p.cpu_us, p.size / p.cpu_us) for p in self.points]
        aa, ab, bb = (sum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
        a, b = (sum(row[i] for row in rows) for i in (0, 1))
        determinant = aa * bb - ab * ab
        return (b * aa - a * ab) / determinant, (a * bb - b * ab) / determinant

    def residuals(self) -> list[float]:
        """For each point, how far its cost is above the line (negative: below), as a share of its cost."""
        slope, intercept = self.line()
        return [1 - (intercept + slope * point.size) / point.cpu_us for point in self.points]

    @property
    def furthest(self) -> float:
        """The largest residual, whatever its sign."""
        return max(abs(residual) for residual in self.residuals())

    def described(self) -> str:
        """The nearest line in words."""
        slope, intercept = self.line()
        if abs(slope) >= 1:
            return f"{intercept:.0f} µs and {slope:.1f} µs a {self.unit}"
        return f"{intercept:.0f} µs and {slope * 1000:.2g} ns a {self.unit}"


class Sizes(msgspec.Struct, frozen=True):
    """Which sizes are measured: of keys, of followers, of values in bytes; an empty curve is left out."""

    keys: tuple[int, ...] = KEYS
    followers: tuple[int, ...] = FOLLOWERS
    value_bytes: tuple[int, ...] = VALUE_BYTES


def measure(tools: Tools, seconds: float, rounds: int, sizes: Sizes) -> list[Curve]:
    """All curves; each point is the median of some rounds. Raises `ClusterError`."""
    curves = [
        Curve("keys", "key", "keys", []),
        Curve("followers", "follower", "followers", []),
        Curve("values", "byte", "size of a value (bytes)", []),
    ]
    wanted = [(curves[0], keys, (keys, 5, 100)) for keys in sizes.keys]
    wanted += [(curves[1], followers, (1_000, followers, 100)) for followers in sizes.followers]
    wanted += [(curves[2], value_bytes, (1_000, 5, value_bytes)) for value_bytes in sizes.value_bytes]
    for curve, size, shape in track(wanted, "scaling", console=Console(stderr=True), transient=True):
        per_second, cpu_us = _cost(tools, shape, seconds, rounds)
        curve.points.append(Point(size, cpu_us, per_second))
    return [curve for curve in curves if curve.points]


def _cost(tools: Tools, sizes: tuple[int, int, int], seconds: float, rounds: int) -> tuple[float, float]:
    """Writes per second, and CPU time in µs per write, of a fresh cluster of these sizes."""
    keys, followers, value_bytes = sizes
    folder = tools.data / f"scaling-{keys}-{followers}-{value_bytes}"
    settings = {
        "write_quorum": str(min(3, followers)),
        "min_free_bytes": "0",
        "max_pending_bytes": str(1 << 28),
    }
    with Cluster(folder, free_ports(followers + 1), settings) as cluster:
        fill(tools, cluster, keys, value_bytes)
        port = cluster.request("leader", "GET", "/config").checked().json().get("resp_port")
        load = Load(
            mode="resp-set" if isinstance(port, int) else "http-put",
            port=port if isinstance(port, int) else cluster.ports[0],
            connections=CONNECTIONS,
            seconds=seconds,
            keys=keys,
            value_bytes=value_bytes,
            warm_up=0.0,
        )
        found = []
        for _ in range(rounds):
            before_s = _cpu_of_all(cluster)
            result = run_load(tools.generator, load)
            if result.errors or not result.count:
                raise ClusterError(
                    f"Writes failed at {keys} keys, {followers} followers: {result.errors or 'no answer'}."
                )
            # By all answers: before the time begins, one new connection a loop turn is taken, and others write already.
            found.append((result.per_second, (_cpu_of_all(cluster) - before_s) / result.all * 1e6))
    return statistics.median(rate for rate, _ in found), statistics.median(cost for _, cost in found)


def _cpu_of_all(cluster: Cluster) -> float:
    return sum(cpu_seconds(cluster.process(name).pid) for name in cluster.names)


def outcomes(tools: Tools, plan: Plan) -> list[Outcome]:
    """The rows of goal 13 in the table of goals."""
    keys, followers, values = measure(tools, plan.seconds, min(plan.rounds, 3), Sizes())
    rows = [
        Outcome(
            number=13,
            what=f"CPU per write, {keys.points[0].size:,} to {keys.points[-1].size:,} keys",
            goal=f"flat (<= {FLAT:g}x)",
            verdict=MET if keys.growth <= FLAT else NOT_MET,
            ours=f"{keys.growth:.2f}x",
            note=keys.described(),
        )
    ]
    rows += [
        Outcome(
            number=13,
            what=f"CPU per write, {curve.points[0].size:,} to {curve.points[-1].size:,} {curve.unit}s",
            goal=f"linear (within {LINEAR:.0%})",
            verdict=MET if curve.furthest <= LINEAR else NOT_MET,
            ours=f"within {curve.furthest:.0%}",
            note=curve.described(),
        )
        for curve in (followers, values)
    ]
    return rows


def main(words: Sequence[str]) -> int:
    """The command of this file."""
    parser = argparse.ArgumentParser(prog="bench/scaling.py", description="what a write costs as things grow")
    parser.add_argument("--seconds", type=at_least(0.2), default=3.0, help="seconds of each measurement (3)")
    parser.add_argument("--rounds", type=at_least(1), default=3, help="measurements of each point (3)")
    for name, values in zip(Sizes.__struct_fields__, (KEYS, FOLLOWERS, VALUE_BYTES), strict=True):
        option, what = f"--{name.replace('_', '-')}", "bytes of a value" if name == "value_bytes" else name
        parser.add_argument(
            option,
            type=at_least(values[1]),
            default=values[-1],
            metavar="N",
            help=f"up to so many {what}, at least {values[1]} ({values[-1]})",
        )
    parser.add_argument("--only", choices=("keys", "followers", "values"), help="one curve alone")
    parser.add_argument("--plot", type=Path, default=PLACE / "scaling.png", help="where the picture goes")
    arguments = parser.parse_args(words)

    def body(tools: Tools) -> int:
        curves = measure(tools, arguments.seconds, arguments.rounds, _sizes(arguments))
        _show(curves)
        write_picture("scaling", curves, arguments.plot)
        return EXIT_DONE

    return run_command(body)


def _sizes(arguments: argparse.Namespace) -> Sizes:
    def chosen(curve: str, values: tuple[int, ...], largest: int) -> tuple[int, ...]:
        return tuple(value for value in values if value <= largest) if arguments.only in (None, curve) else ()

    return Sizes(
        chosen("keys", KEYS, arguments.keys),
        chosen("followers", FOLLOWERS, arguments.followers),
        chosen("values", VALUE_BYTES, arguments.value_bytes),
    )


def _show(curves: list[Curve]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("what grows", "to", "CPU µs per write", "off the line", "writes/s", "nearest line"):
        table.add_column(column, justify="left" if column in ("what grows", "nearest line") else "right")
    for curve in curves:
        line = f"{curve.described()}, within {curve.furthest:.0%}; last / first {curve.growth:.2f}"
        for point, residual in zip(curve.points, curve.residuals(), strict=True):
            figures = (f"{point.cpu_us:.1f}", f"{residual:+.0%}", f"{point.per_second:,.0f}")
            table.add_row(curve.what, f"{point.size:,}", *figures, line)
            line = ""
        table.add_section()
    console().print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
