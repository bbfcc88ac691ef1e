"""Interleaved rounds: two systems run side by side and are loaded in turns, so that what disturbs one disturbs both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import msgspec

from bench.generator import LoadResult
from bench.goals import SYSTEMS, Goal, Side
from bench.installing import NotAvailable
from bench.systems.contract import System, Tools, Work
from retinue.errors import RetinueError

MET, NOT_MET, SKIPPED, FAILED = "met", "not met", "skipped", "failed"
_BUSY = 0.9


class Plan(msgspec.Struct, frozen=True):
    """How long to measure: `rounds` times each side, `seconds` each."""

    rounds: int
    seconds: float


class Outcome(msgspec.Struct, kw_only=True):
    """One row of the table. Figures are medians over the rounds, `ratios` one a round; `note` says what is odd.

    `cpu` is what all nodes of ours and of the peer took for a request together, in µs.
    """

    number: int
    what: str
    goal: str
    verdict: str
    ours: str = "-"
    peer: str = "-"
    cpu: str = ""
    ratios: list[float] = []
    note: str = ""
    results: dict[str, list[LoadResult]] = {}


def run_goals(goals: Sequence[Goal], tools: Tools, plan: Plan, advance: Callable[[str, int], None]) -> list[Outcome]:
    """Measure all these goals. `advance(what, rounds)` is told what begins and how many rounds are done with."""
    outcomes: dict[Goal, Outcome] = {}
    for pair, together in _by_pair(goals).items():
        advance(" against ".join(dict.fromkeys(pair)), 0)
        outcomes |= zip(together, _run_pair(pair, together, tools, plan, advance), strict=True)
    return [outcomes[goal] for goal in goals]


def sides(goals: Sequence[Goal]) -> list[Side]:
    """What is measured for these goals, each once and beside its counterpart; figures of one run serve all goals."""
    return list(dict.fromkeys(side for goal in goals for side in (goal.ours, goal.peer)))


def count_measurements(goals: Sequence[Goal]) -> int:
    """How many measurements one round of these goals takes."""
    return sum(len(sides(together)) for together in _by_pair(goals).values())


def _by_pair(goals: Sequence[Goal]) -> dict[tuple[str, str], list[Goal]]:
    pairs: dict[tuple[str, str], list[Goal]] = {}
    for goal in goals:
        pairs.setdefault(goal.systems, []).append(goal)
    return pairs


def _run_pair(
    pair: tuple[str, str], goals: list[Goal], tools: Tools, plan: Plan, advance: Callable[[str, int], None]
) -> Iterator[Outcome]:
    """Start two systems, let them work in turns, stop them; one outcome for each goal."""
    wanted = sides(goals)
    measured: dict[Side, list[LoadResult]] = {side: [] for side in wanted}
    done = 0
    try:
        with ExitStack() as stack:
            running: dict[str, System] = {}
            for name in dict.fromkeys(pair):
                running[name] = stack.enter_context(SYSTEMS[name](tools))
            for number in range(plan.rounds):
                for side in wanted if number % 2 == 0 else reversed(wanted):
                    measured[side].append(running[side.system].work(_work(side, plan)))
                    advance("", 1)
                    done += 1
    except NotAvailable as reason:
        verdict, note = SKIPPED, reason.detail
    except RetinueError as error:
        verdict, note = FAILED, error.detail
    else:
        verdict = note = ""
    advance("", plan.rounds * len(wanted) - done)
    for goal in goals:
        if verdict:
            yield Outcome(number=goal.number, what=goal.what, goal=_bound(goal), verdict=verdict, note=note)
        else:
            yield _judge(goal, measured[goal.ours], measured[goal.peer])


def _work(side: Side, plan: Plan) -> Work:
    return Work(what=side.what, connections=side.connections, seconds=plan.seconds, pipeline=side.pipeline)


def _judge(goal: Goal, ours: list[LoadResult], peer: list[LoadResult]) -> Outcome:
    figures = [[float(getattr(result, goal.figure)) for result in results] for results in (ours, peer)]
    outcome = Outcome(
        number=goal.number,
        what=goal.what,
        goal=_bound(goal),
        verdict=FAILED,
        ours=_shown(goal, figures[0]),
        peer=_shown(goal, figures[1]),
        cpu=" / ".join(_cpu(results) for results in (ours, peer)),
        results={"ours": ours, "peer": peer},
    )
    errors = sum(sum(result.errors.values()) for result in ours + peer)
    if errors or not all(result.count for result in ours + peer):
        kinds = sorted({kind for result in ours + peer for kind in result.errors})
        outcome.note = f"{errors} requests failed ({', '.join(kinds)})" if errors else "a round without any answer"
        return outcome
    outcome.ratios = [mine / theirs for mine, theirs in zip(*figures, strict=True)]
    outcome.verdict = MET if goal.met(statistics.median(outcome.ratios)) else NOT_MET
    if any(result.generator_cpu_s > _BUSY * result.seconds for result in ours + peer):
        outcome.note = "the load generator itself was the limit in some rounds"
    return outcome


def _cpu(results: list[LoadResult]) -> str:
    middle_us = statistics.median(result.servers_cpu_us for result in results)
    return f"{middle_us:.0f}" if middle_us else "?"


def _bound(goal: Goal) -> str:
    return f"{'>=' if goal.at_least else '<='} {goal.bound:g}x"


def _shown(goal: Goal, figures: list[float]) -> str:
    middle = statistics.median(figures)
    return f"{middle:,.0f}/s" if goal.at_least else f"{middle / 1000:,.2f} ms"
