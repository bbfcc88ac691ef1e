"""What `retinue bench` gives: a table, `bench.json`, and pictures where matplotlib is installed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from retinue.lab.bench_grid import DISK, HTTP, RESP, Grid
from retinue.lab.bench_run import WARM_UP_S, Point
from retinue.lab.experiments.contract import Table
from retinue.lab.reports.folder import utc_now, write_file
from retinue.lab.reports.host import describe_host, describe_versions

RESULTS = "bench.json"
COLUMNS = {
    "storage": "storage",
    "value_bytes": "value B",
    "door": "door",
    "operation": "operation",
    "quorum": "quorum",
    "pipeline": "pipeline",
    "clients": "clients",
}
BUSY = 0.9
"""From this share of a core on, the generator may be what is measured."""


class Report:
    """What was measured so far. `keep` writes it to the folder, so that it outlives whatever happens next."""

    def __init__(self, folder: Path, grid: Grid) -> None:
        self.folder = folder
        self.grid = grid
        self.wanted = len(list(grid.cases()))
        self.points: list[Point] = []
        self.begun = utc_now()

    def keep(self, point: Point) -> None:
        """Add a point."""
        self.points.append(point)
        write_file(self.folder, RESULTS, msgspec.json.format(msgspec.json.encode(self.plain())) + b"\n")

    def plain(self) -> dict[str, Any]:
        """All of it, as `bench.json` has it; NaN becomes null there."""
        return {
            "begun": self.begun,
            "complete": len(self.points) == self.wanted,
            "followers": self.grid.followers,
            "url": self.grid.url,
            "warm_up_s": min(WARM_UP_S, self.grid.duration_s),
            "generator": "python",
            "host": describe_host(),
            "versions": describe_versions(),
            "points": [_plain(point) for point in self.points],
        }

    def table(self) -> Table:
        """One row a point. What is the same in all rows stands in the title, so that the table fits a terminal."""
        shown = [name for name in COLUMNS if name == "clients" or self._varies(name)]
        columns = [COLUMNS[name] for name in shown]
        columns += ["requests/s", "p50 ms", "p95 ms", "p99 ms", "failures", "generator CPU"]
        rows = []
        for point in self.points:
            latencies = [None if math.isnan(ms) else ms for ms in (point.p50_ms, point.p95_ms, point.p99_ms)]
            figures = [round(point.per_second), *latencies, _failures(point.failures), f"{point.generator_cpu:.0%}"]
            rows.append([*(getattr(point.case, name) for name in shown), *figures])
        return Table(title=self._title(), columns=columns, rows=rows, notes=self._notes())

    def _varies(self, name: str) -> bool:
        return len({getattr(point.case, name) for point in self.points}) > 1

    def _title(self) -> str:
        case, grid = self.points[0].case, self.grid
        same = {
            "storage": "synced to disk" if case.storage == DISK else "in memory",
            "door": {HTTP: "HTTP", RESP: "Redis protocol"}[case.door],
            "operation": f"{case.operation}s",
            "value_bytes": f"values of {case.value_bytes} B",
            "quorum": "" if case.quorum is None else f"write quorum {case.quorum}",
            "pipeline": f"pipelines of {case.pipeline}" if case.pipeline > 1 else "",
        }
        said = [text for name, text in same.items() if text and not self._varies(name)]
        count = f"{grid.followers} follower{'' if grid.followers == 1 else 's'}"
        where = f"A leader and {count}{f' at {grid.url}' if grid.url else ''}"
        return f"{', '.join([where, *said])}; {grid.duration_s:g} s for each row"

    def _notes(self) -> list[str]:
        notes = []
        if len(self.points) < self.wanted:
            notes.append(f"Not complete: {len(self.points)} of {self.wanted} cases were measured.")
        if any(point.generator_cpu > BUSY for point in self.points):
            notes.append(
                f"Where the load generator took more than {BUSY:.0%} of a core, it may be the limit, not the cluster."
            )
        return notes


def _plain(point: Point) -> dict[str, Any]:
    figures = msgspec.to_builtins(point)
    case: dict[str, Any] = figures.pop("case")
    return case | {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}


def _failures(failures: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(failures.items())) or "0"


def write_pictures(report: Report) -> list[str]:
    """Write the pictures; their file names. Raises `ModuleNotFoundError` where matplotlib is not installed."""
    from retinue.lab.bench_pictures import pictures
    from retinue.lab.reports.figures import png

    drawn = pictures(report.points, report.grid.followers)
    for name, figure in drawn:
        write_file(report.folder, f"{name}.png", png(figure))
    return [f"{name}.png" for name, _ in drawn]
