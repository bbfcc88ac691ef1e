"""The command `bench/peers.py`: chooses the goals, measures them, prints the table."""

from __future__ import annotations

import argparse
import datetime
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bench import delays, memory, scaling
from bench.goals import SYSTEMS, all_goals
from bench.rounds import FAILED, MET, NOT_MET, SKIPPED, Outcome, Plan, count_measurements, run_goals
from bench.systems.contract import Tools
from bench.workshop import at_least, console, run_command, write_picture
from retinue.errors import EXIT_DONE, EXIT_FAILED, RetinueError
from retinue.lab.reports.host import describe_host

LAST_GOAL = 13
_COLOURS = {MET: "green", NOT_MET: "red", SKIPPED: "yellow", FAILED: "red"}
_ALONE: dict[int, Callable[[Tools, Plan], list[Outcome]]] = {
    10: delays.outcomes_of_goal_10,
    11: delays.outcomes_of_goal_11,
    12: memory.outcomes,
    13: scaling.outcomes,
}


def main(words: Sequence[str]) -> int:
    """Run the command; its exit code."""
    arguments = _arguments(words)
    return run_command(lambda tools: _run(arguments, tools))


def _run(arguments: argparse.Namespace, tools: Tools) -> int:
    outcomes = _measure(arguments, tools)
    _show(outcomes, arguments, tools)
    if arguments.json:
        _write(outcomes, arguments)
    if arguments.markdown:
        arguments.markdown.write_text(as_markdown(outcomes), encoding="utf-8")
    if arguments.plot:
        write_picture("goals", outcomes, arguments.plot)
    return EXIT_DONE if all(outcome.verdict == MET for outcome in outcomes) else EXIT_FAILED


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/peers.py", description="our cluster against other systems")
    parser.add_argument("--goals", default=f"1-{LAST_GOAL}", help="which goals, such as 1,2,4 or 1-9 (all)")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="interleaved rounds of each pair (5)")
    parser.add_argument("--seconds", type=at_least(0.2), default=3.0, help="seconds of each measurement (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every measurement to this file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to this file, for a page")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw what was reached of each goal, as PNG")
    arguments = parser.parse_args(words)
    arguments.chosen = _numbers(arguments.goals)
    if not arguments.chosen:
        parser.error(f"--goals {arguments.goals}: give numbers from 1 to {LAST_GOAL}, such as 1,2,4 or 1-9.")
    return arguments


def _numbers(text: str) -> list[int]:
    """The numbers of goals that this names; none if some part of it is no goal."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            return []
        numbers |= set(range(int(first), int(last or first) + 1))
    return sorted(numbers) if numbers <= set(range(1, LAST_GOAL + 1)) else []


def _measure(arguments: argparse.Namespace, tools: Tools) -> list[Outcome]:
    plan = Plan(arguments.rounds, arguments.seconds)
    goals = [goal for goal in all_goals() if goal.number in arguments.chosen]
    alone = [number for number in _ALONE if number in arguments.chosen]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=plan.rounds * (count_measurements(goals) + len(alone)))

        def advance(what: str, steps: int) -> None:
            progress.update(task, advance=steps, description=what or None)

        outcomes = run_goals(goals, tools, plan, advance)
        for number in alone:
            advance(f"goal {number}", 0)
            outcomes += _alone(number, tools, plan)
            advance("", plan.rounds)
    return outcomes


def _alone(number: int, tools: Tools, plan: Plan) -> list[Outcome]:
    try:
        return _ALONE[number](tools, plan)
    except RetinueError as error:
        return [Outcome(number=number, what="see the note", goal="-", verdict=FAILED, note=error.detail)]


def _show(outcomes: list[Outcome], arguments: argparse.Namespace, tools: Tools) -> None:
    output = console()
    output.print(f"{arguments.rounds} interleaved rounds of {arguments.seconds:g} s; medians; {_machine()}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("goal", "what", "ours", "peer", "ratio: least median most", "CPU µs", "wanted", "verdict"):
        table.add_column(column, justify="right" if column in ("ours", "peer") else "left")
    notes = list(dict.fromkeys(row.note for row in outcomes if row.note))
    for row in outcomes:
        colour = _COLOURS[row.verdict]
        verdict = f"[{colour}]{row.verdict}[/{colour}]" + (f" ({notes.index(row.note) + 1})" if row.note else "")
        table.add_row(str(row.number), row.what, row.ours, row.peer, spread(row.ratios), row.cpu, row.goal, verdict)
    output.print(table)
    for number, note in enumerate(notes, start=1):
        output.print(f"({number}) {note}", highlight=False, markup=False)
    named = {name for goal in all_goals() if goal.number in arguments.chosen for name in goal.systems}
    for name, make in SYSTEMS.items():
        if name in named:
            output.print(f"[bold]{name}[/bold]: {make(tools).configuration}", highlight=False)


def as_markdown(outcomes: list[Outcome]) -> str:
    """The table as `docs/performance.md` has it."""
    lines = ["| goal | what | ours | peer | ratio: least, median, most | CPU µs, ours / peer | wanted | verdict |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in outcomes:
        verdict = f"{row.verdict} ({row.note})" if row.note else row.verdict
        cells = (str(row.number), row.what, row.ours, row.peer, spread(row.ratios), row.cpu or "-", row.goal, verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def spread(ratios: list[float]) -> str:
    """Least, median and greatest of some ratios."""
    if not ratios:
        return "-"
    return f"{min(ratios):.2f} {statistics.median(ratios):.2f} {max(ratios):.2f}"


def _machine() -> str:
    host = describe_host()
    return f"{host['cores']} cores, {host['cpu']}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}"


def _write(outcomes: list[Outcome], arguments: argparse.Namespace) -> None:
    report = {
        "machine": describe_host(),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "goals": outcomes,
    }
    arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
