"""The example that is wrong on purpose: the laboratory has to find every fault of it and call it by its name."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from retinue.cli import main
from retinue.errors import EXIT_VIOLATION, ClusterError
from retinue.lab.experiments.contract import Step
from retinue.lab.experiments.faults import Faults
from retinue.lab.experiments.faults_sample import VERDICT, FaultSample, FaultsSettings
from retinue.lab.experiments.faults_summary import named_faults
from retinue.lab.judging.diagnosis import LAST_ARRIVAL, LOST_SENDS, RESURRECTED, TOO_FEW_COPIES
from retinue.lab.targets.opening import Where, open_target
from retinue.ports import free_ports

SERVER = Path(__file__).parents[2] / "examples" / "naive_server.py"
FOLLOWERS = 5
DELAY_MS = 300


class Naive(NamedTuple):
    """A leader and its followers, all in one process, and their addresses."""

    process: subprocess.Popen[str]
    urls: list[str]

    @property
    def where(self) -> Where:
        return Where(url=self.urls[0], followers=tuple(self.urls[1:]))


@contextmanager
def naive_cluster(quorum: int) -> Iterator[Naive]:
    """Start it; it takes ports one after another."""
    port = _free_range(FOLLOWERS + 1)
    told = {"PORT": str(port), "WRITE_QUORUM": str(quorum), "MAX_DELAY_MS": str(DELAY_MS)}
    words = [sys.executable, str(SERVER)]
    with subprocess.Popen(words, env=os.environ | told, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "leader on port" in process.stdout.readline()
            yield Naive(process, [f"http://127.0.0.1:{port + number}" for number in range(FOLLOWERS + 1)])
        finally:
            process.kill()


def _free_range(count: int) -> int:
    for _ in range(50):
        first = free_ports(1)[0]
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError("no free ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def faults_found(where: Where, quorum: int) -> list[str]:
    settings = FaultsSettings(duration_s=1.0, quiet_s=1.0, probe_keys=30, quorum=quorum)

    async def run() -> list[FaultSample]:
        async with open_target(where, settings) as target:
            return [item async for item in Faults().run(target, settings) if isinstance(item, FaultSample)]

    return [fault.name for fault in named_faults(asyncio.run(run()))]


def test_the_command_finds_the_faults_and_names_what_was_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with naive_cluster(quorum=3) as cluster:
        where = [f"--url={cluster.urls[0]}", f"--followers={','.join(cluster.urls[1:])}"]
        quick = ["--duration-s=1", "--quiet-s=1", "--probe-keys=30"]
        code = main(["lab", "faults", *where, *quick, f"--out={tmp_path}", "--json"])
        told = json.loads(capsys.readouterr().out)
        assert code == EXIT_VIOLATION
        violations = told["summary"]["violations"]
        for name in (LOST_SENDS, RESURRECTED, LAST_ARRIVAL):
            assert [sentence for sentence in violations if sentence.startswith(f"{name}: ")], violations
        assert "still lacks" in violations[0]
        # A send that is under way when the quorum is met still arrives, and on a slow machine more are.
        told_quorum = r"followers, as if the quorum were [34]: the server stops sending once the quorum is met"
        assert re.search(told_quorum, violations[0]), violations
        [history] = Path(told["folder"]).glob("history-*.jsonl")
        assert main(["verify", *where, "--quiet=0.5", f"--history={history}"]) == EXIT_VIOLATION
    shown = capsys.readouterr().out
    assert "Violation: lost remaining sends: " in shown
    assert "Differences from leader (" in shown
    assert "None of the acknowledged writes" in shown


def test_when_all_must_confirm_nothing_is_missing_but_order_still_is() -> None:
    with naive_cluster(quorum=5) as cluster:
        found = faults_found(cluster.where, quorum=5)
    assert found == [TOO_FEW_COPIES, RESURRECTED, LAST_ARRIVAL]


def test_a_server_that_dies_half_way_is_told_and_convicted_of_nothing() -> None:
    settings = FaultsSettings(duration_s=0.5, quiet_s=0.5, settle_s=5, probe_keys=20)
    samples: list[FaultSample] = []

    async def run(cluster: Naive) -> None:
        async with open_target(cluster.where, settings) as target:
            async for item in Faults().run(target, settings):
                if isinstance(item, FaultSample):
                    samples.append(item)
                elif isinstance(item, Step) and item.done == 1:
                    cluster.process.kill()

    with naive_cluster(quorum=1) as cluster, pytest.raises(ClusterError, match="Not all nodes could be compared: "):
        asyncio.run(run(cluster))
    assert [sample.committed > 0 for sample in samples if sample.sort == VERDICT] == [True]
    assert Faults().summary(settings, samples).violations == []
