"""The experiment `faults`: nodes are killed, paused, cut off and replaced while clients write and read.

Every schedule ends with the same questions: is any acknowledged write gone, does one order explain what all clients
saw, are all replicas equal, and how long did it take until writes went through again? A cluster whose nodes nobody may
break is asked the same after writes that would show whether it can be trusted (`faults_probes`).
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing

from retinue.errors import ClusterError
from retinue.lab.experiments import faults_figures, faults_summary
from retinue.lab.experiments.contract import Attachment, Experiment, Picture, Step, Summary
from retinue.lab.experiments.faults_probes import Probes
from retinue.lab.experiments.faults_run import ScheduleRun
from retinue.lab.experiments.faults_sample import FaultSample, FaultsSettings
from retinue.lab.experiments.preparing import check_target, simulate_network
from retinue.lab.history import encode_history
from retinue.lab.schedules import Schedule, draw_quorum, draw_schedule, named_schedule
from retinue.lab.targets.contract import Target

PROBE_STEPS = 6


class Faults(Experiment[FaultsSettings, FaultSample]):
    """Writes while nodes fail."""

    name = "faults"
    title = "What faults cost, and whether anything is lost"
    question = "What happens to writes while nodes die, sleep and are cut off, and is anything acknowledged ever lost?"
    settings_type = FaultsSettings
    sample_type = FaultSample

    async def run(
        self, target: Target, settings: FaultsSettings
    ) -> AsyncGenerator[Step | FaultSample | Attachment, None]:
        """Measure: schedules one after another, or probes where nobody may break anything."""
        if settings.quorum:
            check_target(target, (settings.quorum,), "--quorum")
        await simulate_network(target, settings)
        # Old keys of a running cluster would be writes that the history knows nothing of.
        mark = f"faults-{'' if target.abilities.virtual else uuid.uuid4().hex[:8] + '-'}"
        if not target.abilities.faults:
            async with aclosing(_probe(target, settings, mark)) as items:
                async for item in items:
                    yield item
            return
        chosen = list(schedules(settings, target.nodes))
        for number, schedule in enumerate(chosen):
            await simulate_network(target, settings)
            run = ScheduleRun(target, schedule, f"{mark}{number}-", settings)
            yield Step(number, len(chosen), schedule.name)
            async with aclosing(run.run()) as events:
                async for what in events:
                    share = min(1.0, run.elapsed_ms / (schedule.duration_ms * 1.25))
                    yield Step(number + share, len(chosen), f"{schedule.name}: {what}")
            for sample in run.samples:
                yield sample
            yield Attachment(f"history-{schedule.name.replace(' ', '-')}.jsonl", encode_history(run.records.history))

    def summary(self, settings: FaultsSettings, samples: Sequence[FaultSample]) -> Summary:
        """Tables, reading and verdict."""
        return faults_summary.summarize(samples)

    def figures(self, settings: FaultsSettings, samples: Sequence[FaultSample]) -> list[Picture]:
        """Availability with the events, recovery and catch-up times, differences."""
        return faults_figures.draw(samples)


async def _probe(
    target: Target, settings: FaultsSettings, mark: str
) -> AsyncGenerator[Step | FaultSample | Attachment, None]:
    probes = Probes(target, mark, settings)
    done = 0
    async with aclosing(probes.run()) as steps:
        async for what in steps:
            yield Step(done, PROBE_STEPS, what)
            done += 1
    for sample in probes.samples:
        yield sample
    yield Attachment("history-no-faults.jsonl", encode_history(probes.records.history))
    if probes.silent:
        raise ClusterError(f"Not all nodes could be compared: {next(iter(probes.silent.values()))}")


def schedules(settings: FaultsSettings, nodes: Sequence[str]) -> Iterator[Schedule]:
    """The schedules that these settings ask for; the leader is the first of `nodes`."""
    followers = len(nodes) - 1
    duration_ms = settings.duration_s * 1000
    if settings.schedule:
        yield named_schedule(settings.schedule, nodes, settings.quorum or (followers + 1) // 2, duration_ms)
        return
    for seed in range(settings.seed, settings.seed + settings.schedules):
        yield draw_schedule(seed, nodes, settings.quorum or draw_quorum(seed, followers), duration_ms)
