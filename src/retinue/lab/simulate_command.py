"""`retinue simulate`: run seeds, show how fast, and say how to replay what fails.

Exit code 0: no violation; 2: unknown mutant; 7: a violation was found.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from retinue.errors import EXIT_USAGE, EXIT_VIOLATION
from retinue.lab.mutants import MUTANTS
from retinue.lab.simulator import Report, Simulation

SEEDS = 100
_SHOWN_SEEDS = 5
_SHOWN_VIOLATIONS = 4


class Totals(msgspec.Struct):
    """Sums over all seeds."""

    seeds: int = 0
    operations: int = 0
    take_overs: int = 0
    undecided: int = 0
    failing: list[Report] = []

    def add(self, report: Report) -> None:
        """Count one seed."""
        self.seeds += 1
        self.operations += report.operations
        self.take_overs += report.take_overs
        self.undecided += report.undecided
        if report.violations:
            self.failing.append(report)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    seeds = f"how many seeds to run (default {SEEDS}, or 1 with --seed)"
    parser.add_argument("--seeds", type=int, default=None, metavar="N", help=seeds)
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="the first seed")
    parser.add_argument("--trace", action="store_true", help="print every event and effect, in order")
    parser.add_argument("--mutant", metavar="NAME", help="take one safety rule away: the run has to fail")
    parser.add_argument("--list-mutants", action="store_true", help="list the mutants and the rules they break")
    parser.add_argument("--jobs", type=int, default=None, metavar="J", help="processes (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    console = Console(highlight=False)
    if arguments.list_mutants:
        _list_mutants(console, arguments.json)
        return 0
    if arguments.mutant is not None and arguments.mutant not in MUTANTS:
        console.print(f"There is no mutant {arguments.mutant!r}. `retinue simulate --list-mutants` lists them.")
        return EXIT_USAGE
    first = arguments.seed or 0
    alone = arguments.trace or (arguments.seeds is None and arguments.seed is not None)
    count = 1 if alone else SEEDS if arguments.seeds is None else arguments.seeds
    totals = Totals(failing=[])
    reports = _reports(range(first, first + count), arguments.mutant, arguments.trace, arguments.jobs)
    if arguments.json or count == 1:
        for report in reports:
            totals.add(report)
            for line in report.trace:
                print(line)
    else:
        _show_progress(console, reports, count, totals)
    if arguments.json:
        print(json.dumps(_as_json(totals, arguments.mutant)))
    else:
        _summarize(console, totals, arguments.mutant)
    return EXIT_VIOLATION if totals.failing else 0


def _run_seed(task: tuple[int, str | None, bool]) -> Report:
    seed, mutant, tracing = task
    if mutant is None:
        return Simulation(seed, tracing=tracing).run()
    return MUTANTS[mutant].simulation(seed, tracing).run()


def _reports(seeds: Sequence[int], mutant: str | None, tracing: bool, jobs: int | None) -> Iterator[Report]:
    tasks = [(seed, mutant, tracing) for seed in seeds]
    processes = min(jobs or os.cpu_count() or 1, max(1, len(tasks) // 8))
    if processes <= 1:
        yield from map(_run_seed, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(_run_seed, tasks, chunksize=8)


def _show_progress(console: Console, reports: Iterator[Report], count: int, totals: Totals) -> None:
    columns = (
        TextColumn("seeds"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[failing]} failing"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("seeds", total=count, rate="", failing=0)
        for report in reports:
            totals.add(report)
            speed = progress.tasks[0].speed
            rate = f"{speed:.1f} seeds/s" if speed else ""
            progress.update(task, advance=1, rate=rate, failing=len(totals.failing))


def _summarize(console: Console, totals: Totals, mutant: str | None) -> None:
    console.print(
        f"{totals.seeds} seeds, {totals.operations} client operations, {totals.take_overs} take-overs; "
        f"{totals.undecided} keys undecided; {len(totals.failing)} seeds with violations"
    )
    option = f" --mutant {mutant}" if mutant else ""
    for report in sorted(totals.failing, key=lambda report: report.seed)[:_SHOWN_SEEDS]:
        console.print(f"seed {report.seed}; replay: retinue simulate --seed {report.seed}{option} --trace")
        for violation in report.violations[:_SHOWN_VIOLATIONS]:
            console.print(f"  {violation.check}: {violation.detail}", markup=False)


def _as_json(totals: Totals, mutant: str | None) -> dict[str, object]:
    return {
        "seeds": totals.seeds,
        "mutant": mutant,
        "operations": totals.operations,
        "take_overs": totals.take_overs,
        "undecided": totals.undecided,
        "violations": [
            {"seed": report.seed, "check": violation.check, "detail": violation.detail}
            for report in sorted(totals.failing, key=lambda report: report.seed)
            for violation in report.violations
        ],
    }


def _list_mutants(console: Console, as_json: bool) -> None:
    if as_json:
        print(json.dumps({name: mutant.breaks for name, mutant in MUTANTS.items()}))
        return
    width = max(map(len, MUTANTS))
    for name, mutant in MUTANTS.items():
        console.print(f"{name:<{width}}  {mutant.breaks}")
