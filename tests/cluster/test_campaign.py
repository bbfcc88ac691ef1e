"""Everything at once: nodes die, sleep, are cut off and promoted at random while clients read and write."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress

import pytest

from retinue.cluster import Cluster
from retinue.errors import RetinueError, Unreachable
from retinue.lab.checker import STRONG_ONLY
from tests.cluster.conftest import StartCluster
from tests.cluster.verification import status, verify
from tests.cluster.workload import Load, wait_until


class Faults:
    """Breaks a cluster at random, never more than `most` nodes at a time, and knows what it broke."""

    def __init__(self, cluster: Cluster, load: Load, seed: int, most: int = 2) -> None:
        self.cluster = cluster
        self.load = load
        self.dice = random.Random(seed)
        self.most = most
        self.dead: set[str] = set()
        self.paused: set[str] = set()
        self.cut: set[str] = set()
        self.done: list[str] = []

    def step(self) -> None:
        """One more fault, or one fewer."""
        broken = sorted(self.dead | self.paused | self.cut)
        whole = [name for name in self.cluster.names if name not in broken]
        if broken and (len(broken) >= self.most or self.dice.random() < 0.4):
            self._mend(self.dice.choice(broken))
            return
        fault = self.dice.choice(("kill", "kill", "pause", "cut", "promote", "kill the leader"))
        name = self.load.target if fault == "kill the leader" and self.load.target in whole else self.dice.choice(whole)
        self.done.append(f"{fault} {name}")
        if fault.startswith("kill"):
            self.cluster.kill(name)
            self.dead.add(name)
        elif fault == "pause":
            self.cluster.pause(name)
            self.paused.add(name)
        elif fault == "cut":
            with suppress(Unreachable):  # it may be starting
                self.cluster.cut_off(name)
                self.cut.add(name)
        if fault == "promote" or self.load.target in self.dead | self.paused | self.cut:
            self._promote([each for each in whole if each not in self.dead | self.paused | self.cut])

    def _promote(self, candidates: list[str]) -> None:
        name = self.dice.choice(candidates)
        self.done.append(f"promote {name}")
        try:
            self.cluster.request(name, "POST", "/promote?timeout_ms=2000", {}, timeout_s=10)
        except RetinueError as error:
            self.done.append(error.detail)
        self.load.target = name

    def _mend(self, name: str) -> None:
        self.done.append(f"mend {name}")
        if name in self.dead:
            self.cluster.launch([name])
            self.dead.remove(name)
        elif name in self.paused:
            self.cluster.resume(name)
            self.paused.remove(name)
        else:
            self.cluster.heal(name)
            self.cut.remove(name)

    def mend_all(self) -> None:
        """Let everything run again, under one leader."""
        for name in sorted(self.dead | self.paused | self.cut):
            self._mend(name)
        wait_until(lambda: all(self._answers(name) for name in self.cluster.names), "all nodes answer")
        for name in self.cluster.names:
            self.cluster.heal(name)
        wait_until(self._lead, "somebody leads", 60, 0.5)

    def _answers(self, name: str) -> bool:
        try:
            return self.cluster.request(name, "GET", "/livez").status == 200
        except RetinueError:
            return False

    def _lead(self) -> bool:
        """Whether one node leads and the others know it; else the target is promoted again."""
        told = self.cluster.request(self.load.target, "POST", "/promote?timeout_ms=5000", {}, timeout_s=15)
        leaders = {status(self.cluster, name)["leader"] for name in self.cluster.names}
        return told.status == 200 and leaders == {self.load.target}


def campaign(start_cluster: StartCluster, seed: int, duration_s: float, **settings: object) -> None:
    print(f"seed {seed}")
    cluster = start_cluster(peer_timeout_ms=1000, **settings)
    with Load(cluster, clients=6) as load:
        faults = Faults(cluster, load, seed)
        ends_s = time.monotonic() + duration_s
        try:
            while time.monotonic() < ends_s:
                faults.step()
                time.sleep(faults.dice.uniform(0, 0.5))
        finally:
            print("the last of them:", "; ".join(faults.done[-40:]))
        faults.mend_all()
        load.wait_for_writes(50)
    verify(cluster, load.history, STRONG_ONLY, timeout_s=60)
    written = load.acknowledged()
    print(f"{len(load.history)} operations, {written} acknowledged writes, {len(faults.done)} faults and repairs")


@pytest.mark.parametrize("seed", [1, 2])
def test_a_short_campaign(start_cluster: StartCluster, seed: int) -> None:
    campaign(start_cluster, seed, 12)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("write_quorum", "max_delay_ms"), [(3, 0), (3, 30), (2, 5), (4, 5)], ids=["k3", "k3-delay", "k2", "k4"]
)
def test_a_long_campaign(start_cluster: StartCluster, write_quorum: int, max_delay_ms: float) -> None:
    seed = int(os.environ.get("RETINUE_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
    campaign(start_cluster, seed, 180, write_quorum=write_quorum, max_delay_ms=max_delay_ms)
