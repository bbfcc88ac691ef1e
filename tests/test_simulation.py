"""Whole clusters on virtual time: many seeds without a violation, and every mutant of the protocol caught."""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Callable

import pytest

from retinue.lab import simulate_command
from retinue.lab.mutants import MUTANTS
from retinue.lab.plan import Plan, draw_plan, draw_replaced
from retinue.lab.simulator import Simulation

LONG = os.environ.get("RETINUE_LONG") == "1"
SEEDS = 10_000 if LONG else 320
CHUNK = 200 if LONG else 20

MUTANT_SEEDS = 400
"""Seeds within which a mutant must be caught; most need fewer than twenty."""

TRIED_FIRST = {"reads-before-recovery": 29, "unconfirmed-reads": 1, "learners-count": 121}
"""Seeds that soon show a mutant which is slow to judge, or is shown by few."""

ONLY_SCENARIOS = frozenset({"no-ghost-rule", "two-copies-of-one-request"})
"""Mutants that seeds meet too rarely to ask for; `tests/scenarios` has a script for each."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_seed_breaks_a_promise(first: int) -> None:
    undecided = 0
    for seed in range(first, first + CHUNK):
        report = Simulation(seed).run()
        undecided += report.undecided
        assert not report.violations, f"retinue simulate --seed {seed} --trace: {report.violations[:3]}"
        assert report.operations, f"seed {seed}: nothing happened"
    assert undecided <= CHUNK // 20


@pytest.mark.parametrize(("draw", "seed"), [(draw_plan, 7020), (draw_replaced, 354), (draw_replaced, 4956)])
def test_a_seed_that_once_failed_holds(draw: Callable[[random.Random], Plan], seed: int) -> None:
    assert not Simulation(seed, plan=draw(random.Random(f"plan {seed}"))).run().violations


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", sorted(MUTANTS.keys() - ONLY_SCENARIOS))
def test_seeds_catch_the_mutant(mutant: str) -> None:
    seeds = sorted(range(MUTANT_SEEDS), key=lambda seed: seed != TRIED_FIRST.get(mutant, 0))
    simulations = (MUTANTS[mutant].simulation(seed) for seed in seeds)
    assert any(simulation.run().violations for simulation in simulations), f"{mutant} survives {MUTANT_SEEDS} seeds"


def test_the_same_seed_gives_the_same_run() -> None:
    one, other = (Simulation(7, tracing=True).run() for _ in range(2))
    assert one.trace == other.trace
    assert one.operations == other.operations


def test_tracing_changes_nothing() -> None:
    plain, traced = Simulation(11).run(), Simulation(11, tracing=True).run()
    assert (plain.events, plain.operations, plain.virtual_ms) == (traced.events, traced.operations, traced.virtual_ms)


def command(*words: str) -> int:
    """`retinue simulate` with these words."""
    parser = argparse.ArgumentParser()
    simulate_command.add_arguments(parser)
    return simulate_command.run(parser.parse_args(words))


def test_the_command_says_how_to_replay_what_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--seeds", "12", "--seed", "0", "--jobs", "1", "--mutant", "timeout-is-failure") == 7
    assert "retinue simulate --seed" in capsys.readouterr().out


def test_the_command_runs_seeds_in_several_processes(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--seeds", "16", "--seed", "1", "--jobs", "2", "--json") == 0
    totals = json.loads(capsys.readouterr().out)
    assert totals["seeds"] == 16
    assert totals["violations"] == []


@pytest.mark.parametrize(
    ("words", "seeds"), [(["--seed", "3"], 1), (["--seed", "3", "--seeds", "2"], 2), ([], 2), (["--seeds", "3"], 3)]
)
def test_the_command_runs_as_many_seeds_as_it_is_told(
    words: list[str], seeds: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate_command, "SEEDS", 2)
    assert command(*words, "--json", "--jobs", "1") == 0
    assert json.loads(capsys.readouterr().out)["seeds"] == seeds


def test_the_command_prints_the_trace_of_one_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--seed", "3", "--trace") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("starts to lead" in line for line in lines)
    assert any("SaveEntries" in line for line in lines)


def test_the_command_knows_its_mutants(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--list-mutants", "--json") == 0
    assert json.loads(capsys.readouterr().out).keys() == MUTANTS.keys()
    assert command("--list-mutants") == 0
    assert command("--mutant", "no-such-rule") == 2
