from __future__ import annotations

import asyncio
import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from retinue.errors import SettingsError
from retinue.lab.checker import STRONG_ONLY
from retinue.lab.experiments.contract import Attachment
from retinue.lab.experiments.faults import Faults
from retinue.lab.experiments.faults_sample import (
    BIN,
    CATCH_UP,
    EVENT,
    NODE,
    OUTAGE,
    VERDICT,
    FaultSample,
    FaultsSettings,
)
from retinue.lab.history import Kind, Level, Operation, load_history
from retinue.lab.judging.verdicts import judge
from retinue.lab.reports.figures import png
from retinue.lab.schedules import NAMED, Action
from retinue.lab.targets.contract import Target, Unsuitable
from retinue.lab.targets.opening import Where, open_target
from tests.lab.serving import serving, store_routes
from tests.lab.simulating import on_target

QUICK = FaultsSettings(duration_s=1.0, clients=6, settle_s=30)


class Ran:
    """Samples and recorded histories of a run."""

    def __init__(self) -> None:
        self.samples: list[FaultSample] = []
        self.attachments: dict[str, bytes] = {}

    def of(self, sort: str) -> list[FaultSample]:
        return [sample for sample in self.samples if sample.sort == sort]

    def history(self, folder: Path) -> list[Operation]:
        [(name, content)] = self.attachments.items()
        (folder / name).write_bytes(content)
        return load_history(folder / name)


def run(settings: FaultsSettings, **cluster: Any) -> Ran:
    async def scenario(target: Target) -> Ran:
        ran = Ran()
        async for item in Faults().run(target, settings):
            if isinstance(item, FaultSample):
                ran.samples.append(item)
            elif isinstance(item, Attachment):
                ran.attachments[item.name] = item.content
        return ran

    return on_target(scenario, **cluster)


def quick(**changes: Any) -> FaultsSettings:
    return dataclasses.replace(QUICK, **changes)


@pytest.mark.parametrize("name", NAMED)
def test_no_schedule_breaks_a_promise(name: str) -> None:
    ran = run(quick(schedule=name))
    assert Faults().summary(QUICK, ran.samples).violations == []
    [verdict] = ran.of(VERDICT)
    assert (verdict.linearizable, verdict.equal, verdict.quorum) == ("yes", True, 3)
    assert verdict.committed > 50
    assert [event.detail for event in ran.of(EVENT)] == [""] * len(ran.of(EVENT))


def test_seeds_at_every_quorum_keep_every_promise() -> None:
    ran = run(quick(schedules=4, seed=11, duration_s=1.5))
    summary = Faults().summary(QUICK, ran.samples)
    assert summary.violations == []
    assert summary.key_figures["acknowledged writes lost"] == 0
    assert [verdict.schedule for verdict in ran.of(VERDICT)] == ["seed 11", "seed 12", "seed 13", "seed 14"]
    assert sorted(ran.attachments) == [f"history-seed-{seed}.jsonl" for seed in (11, 12, 13, 14)]


def test_on_virtual_time_a_seed_is_one_run() -> None:
    assert run(quick(schedules=1, seed=3)).samples == run(quick(schedules=1, seed=3)).samples


def test_without_a_quorum_writes_stop_and_go_on() -> None:
    ran = run(quick(schedule="quorum-lost", duration_s=2))
    shares = {sample.at_ms: sample.as_bin().available for sample in ran.of(BIN)}
    assert shares[200.0] == 1.0
    assert shares[600.0] == 0.0
    assert shares[1800.0] == 1.0
    [outage] = ran.of(OUTAGE)
    assert outage.what.startswith(f"{Action.START.value} ")
    assert outage.recovery_ms is not None
    assert outage.recovery_ms > 0
    assert {sample.node for sample in ran.of(CATCH_UP)} == {"follower3", "follower4", "follower5"}


def test_the_quorum_can_be_chosen() -> None:
    ran = run(quick(schedule="one-follower", quorum=5))
    assert ran.of(VERDICT)[0].quorum == 5
    assert ran.of(OUTAGE), "with all five needed, one that is away stops writes"


def test_the_history_holds_every_sort_of_operation_and_convicts_a_leader_that_forgets(tmp_path: Path) -> None:
    ran = run(quick(schedule="one-follower"))
    history = ran.history(tmp_path)
    assert {op.kind for op in history} == {Kind.PUT, Kind.DELETE, Kind.READ}
    assert {op.level for op in history} >= {Level.STRONG, Level.COMMITTED, Level.SESSION}
    assert len(history) == ran.of(VERDICT)[0].operations
    ended_ms = max(op.completed_ms or op.invoked_ms for op in history) + 1
    assert judge(history, {}, ended_ms, STRONG_ONLY).lost != []


@pytest.mark.parametrize("schedules", [1, 2])
def test_every_picture_can_be_drawn(schedules: int) -> None:
    samples = run(quick(schedules=schedules, seed=2, duration_s=0.7)).samples
    pictures = {picture.name: picture for picture in Faults().figures(QUICK, samples)}
    assert set(pictures) >= {"outcomes", "recovery"}
    assert ("availability" in pictures) == (schedules > 1)
    for picture in pictures.values():
        assert imread(io.BytesIO(png(picture.figure))).std() > 0
        assert picture.caption.endswith(".")


def test_replicas_that_differ_are_drawn_with_their_numbers() -> None:
    begun = FaultSample(sort=BIN, schedule="s", quorum=3, committed=5)
    nodes = [
        FaultSample(sort=NODE, schedule="s", quorum=3, node=f"follower{number}", missing=missing, undeleted=30)
        for number, missing in ((1, 12), (2, 0), (3, 1))
    ]
    [picture] = [picture for picture in Faults().figures(QUICK, [begun, *nodes]) if picture.name == "differences"]
    [axes] = picture.figure.axes
    written = [text.get_text() for text in axes.texts]
    assert sorted(written) == ["12", "30", "30", "30", "30", "31", "42"], "parts with room for it, and the sums"
    named = [text.get_text() for text in picture.figure.legends[0].get_texts()]
    assert named == ["missing: it never came", "deleted at the leader, still there"]
    assert imread(io.BytesIO(png(picture.figure))).std() > 0
    assert not any(p.name == "differences" for p in Faults().figures(QUICK, [begun]))


def test_samples_of_a_schedule_that_was_broken_off_are_enough_for_a_summary() -> None:
    samples = [FaultSample(sort=EVENT, schedule="seed 1", quorum=3, what=Action.KILL.value, node="leader")]
    assert Faults().summary(QUICK, samples).violations == []
    assert Faults().figures(QUICK, samples) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"schedule": "earthquake"}, "--schedule=earthquake is not known: choose one of one-follower,"),
        ({"memory": True}, "--memory is not possible with faults"),
        ({"schedules": 0}, "--schedules=0 is not allowed: give at least 1."),
        ({"followers": 0}, "--followers=0 is not allowed"),
        ({"duration_s": 0.0}, "--duration-s=0 is not allowed"),
        ({"quorum": -1}, "--quorum=-1 is not allowed"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        FaultsSettings(**wrong)
    assert refused.value.detail.startswith(said)


def test_a_quorum_above_the_followers_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"--quorum=4 is above the number of followers \(3\): choose less"):
        run(quick(quorum=4), followers=3)


def test_a_quorum_needs_the_addresses_of_the_followers() -> None:
    settings = FaultsSettings(quorum=2)

    async def run(url: str) -> None:
        async with open_target(Where(url=url), settings) as target:
            with pytest.raises(Unsuitable, match="No follower of this server is known"):
                await anext(Faults().run(target, settings))

    with serving(store_routes("POST /set", "GET /get/{key}", "GET /all")) as url:
        asyncio.run(run(url))
