"""Runs of an experiment on a simulated cluster."""

from __future__ import annotations

from typing import Any

from retinue.lab.experiments.contract import Experiment, SampleT, Settings, SettingsT, Step
from retinue.lab.targets.opening import Where, open_target
from retinue.lab.targets.simulated import run_virtually


def run_simulated(experiment: Experiment[SettingsT, SampleT], settings: SettingsT) -> list[SampleT]:
    """The samples of a run, whose progress must be sensible."""
    return run_virtually(_collect(experiment, settings))


async def _collect(experiment: Experiment[SettingsT, SampleT], settings: SettingsT) -> list[SampleT]:
    samples: list[SampleT] = []
    steps = []
    assert isinstance(settings, Settings)
    async with open_target(Where(simulated=True), settings) as target:
        events: Any = experiment.run(target, settings)
        async for event in events:
            if isinstance(event, Step):
                steps.append(event)
            else:
                samples.append(event)
    assert all(0 <= step.done <= step.total for step in steps)
    assert steps[-1].done == steps[-1].total
    return samples
