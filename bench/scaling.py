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
from bench.workshop import PLACE, console, run_command
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
    """What grows, and its points."""

    what: str
    unit: str
    points: list[Point]

    @property
    def growth(self) -> float:
        """The cost of the largest over that of the smallest."""
        return self.points[-1].cpu_us / self.points[0].cpu_us

    def line(self) -> tuple[float, float, float]:
        """The straight line nearest to the points: slope, intercept, and how far the furthest point is from it.

        Distances are shares of the cost of a point, and the sum of their squares is least: with plain distances the
        largest sizes alone would decide.
        """
        # Divided by its cost y, each point asks for intercept / y + slope * size / y = 1: two unknowns, least squares.
        rows = [(1 / p.cpu_us, p.size / p.cpu_us) for p in self.points]
        aa, ab, bb = (sum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
        a, b = (sum(row[i] for row in rows) for i in (0, 1))
        determinant = aa * bb - ab * ab
        intercept, slope = (a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant
        return slope, intercept, max(abs(intercept * row[0] + slope * row[1] - 1) for row in rows)


def measure(tools: Tools, seconds: float, rounds: int, largest_keys: int) -> list[Curve]:
    """All three curves; each point is the median of some rounds. Raises `ClusterError`."""
    curves = [Curve("keys", "key", []), Curve("followers", "follower", []), Curve("value bytes", "byte", [])]
    settings = [(0, keys, 5, 100) for keys in KEYS if keys <= largest_keys]
    settings += [(1, 1_000, followers, 100) for followers in FOLLOWERS]
    settings += [(2, 1_000, 5, value_bytes) for value_bytes in VALUE_BYTES]
    for index, keys, followers, value_bytes in track(settings, "scaling", console=Console(stderr=True), transient=True):
        size = (keys, followers, value_bytes)[index]
        per_second, cpu_us = _cost(tools, (keys, followers, value_bytes), seconds, rounds)
        curves[index].points.append(Point(size, cpu_us, per_second))
    return curves


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
            found.append((result.per_second, (_cpu_of_all(cluster) - before_s) / result.count * 1e6))
    return statistics.median(rate for rate, _ in found), statistics.median(cost for _, cost in found)


def _cpu_of_all(cluster: Cluster) -> float:
    return sum(cpu_seconds(cluster.process(name).pid) for name in cluster.names)


def outcomes(tools: Tools, plan: Plan) -> list[Outcome]:
    """The rows of goal 13 in the table of goals."""
    keys, followers, values = measure(tools, plan.seconds, min(plan.rounds, 3), KEYS[-1])
    rows = [
        Outcome(
            number=13,
            what=f"CPU per write, {keys.points[0].size:,} to {keys.points[-1].size:,} keys",
            goal=f"flat (<= {FLAT:g}x)",
            verdict=MET if keys.growth <= FLAT else NOT_MET,
            ours=f"{keys.growth:.2f}x",
            note=described(keys),
        )
    ]
    for curve in (followers, values):
        furthest = curve.line()[2]
        rows.append(
            Outcome(
                number=13,
                what=f"CPU per write, {curve.points[0].size:,} to {curve.points[-1].size:,} {curve.what}",
                goal=f"linear (within {LINEAR:.0%})",
                verdict=MET if furthest <= LINEAR else NOT_MET,
                ours=f"within {furthest:.0%}",
                note=described(curve),
            )
        )
    return rows


def described(curve: Curve) -> str:
    """The nearest line in words."""
    slope, intercept, _ = curve.line()
    if abs(slope) >= 1:
        return f"{intercept:.0f} µs and {slope:.1f} µs a {curve.unit}"
    return f"{intercept:.0f} µs and {slope * 1000:.2g} ns a {curve.unit}"


def main(words: Sequence[str]) -> int:
    """The command of this file."""
    parser = argparse.ArgumentParser(prog="bench/scaling.py", description="what a write costs as things grow")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds of each measurement (3)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each point (3)")
    parser.add_argument("--keys", type=int, default=KEYS[-1], help=f"the largest number of keys ({KEYS[-1]})")
    parser.add_argument("--plot", type=Path, default=PLACE / "scaling.png", help="where the picture goes")
    arguments = parser.parse_args(words)

    def body(tools: Tools) -> int:
        curves = measure(tools, arguments.seconds, arguments.rounds, max(arguments.keys, KEYS[1]))
        _show(curves)
        _plot(curves, arguments.plot)
        return EXIT_DONE

    return run_command(body)


def _show(curves: list[Curve]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("what grows", "to", "CPU µs per write", "writes/s", "nearest line"):
        table.add_column(column, justify="left" if column in ("what grows", "nearest line") else "right")
    for curve in curves:
        line = f"{described(curve)}, within {curve.line()[2]:.0%}; last / first {curve.growth:.2f}"
        for point in curve.points:
            table.add_row(curve.what, f"{point.size:,}", f"{point.cpu_us:.1f}", f"{point.per_second:,.0f}", line)
            line = ""
        table.add_section()
    console().print(table)


def _plot(curves: list[Curve], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, curve in zip(figure.subplots(1, len(curves)), curves, strict=True):
        axes.plot([p.size for p in curve.points], [p.cpu_us for p in curve.points], marker="o")
        axes.set(xlabel=curve.what, ylabel="CPU of all nodes (µs per write)", ylim=(0, None))
        if curve.what == "keys":
            axes.set_xscale("log")
        else:
            slope, intercept, _ = curve.line()
            ends = [curve.points[0].size, curve.points[-1].size]
            axes.plot(ends, [intercept + slope * size for size in ends], linestyle=":", color="grey")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    console().print(f"picture: {file}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
