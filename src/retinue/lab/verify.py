"""`retinue verify`: the final comparison alone, on any running cluster, and a recorded history against what is there.

Exit code 0: all nodes agree; 1: one of them does not answer; 7: they differ, or the history was not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import msgspec
from rich.console import Console

from retinue.errors import EXIT_DONE, EXIT_VIOLATION, ClusterError, SettingsError
from retinue.lab.checker import FIXED_LEADER, STRONG_ONLY
from retinue.lab.experiments.contract import Settings, Table
from retinue.lab.history import Operation, load_history
from retinue.lab.judging.diagnosis import Facts, counted, diagnose
from retinue.lab.judging.replica_facts import known_from, plain_facts
from retinue.lab.judging.settling import Settled, Watch, settle
from retinue.lab.judging.verdicts import Judgement, judge
from retinue.lab.reports.text import print_lines, print_table
from retinue.lab.targets.opening import Where, open_target
from retinue.settings import PREFIX

DEFAULT_URL = "http://127.0.0.1:8000"
SHOWN_DIFFERENCES = 20
SHOWN_SENTENCES = 20
SHOWN_VALUE = 40


class Findings(msgspec.Struct, frozen=True):
    """What was compared: the nodes in the end, and the judgement on the history, if there was one."""

    target: str
    settled: Settled
    versions: bool
    history: Sequence[Operation] = ()
    judgement: Judgement | None = None

    def sentences(self) -> list[str]:
        """All that is wrong, one sentence each; nodes that do not answer are not among them."""
        lost = [str(loss) for loss in self.judgement.lost] if self.judgement else []
        known = known_from(self.history, self.settled)
        facts = Facts(
            nodes=tuple(plain_facts(self.settled, known)),
            settled_s=self.settled.quiet_ms / 1000,
            once=len(known.once),
            versions=self.versions,
            lost=tuple(lost),
        )
        broken = self.judgement.broken if self.judgement else []
        return [fault.sentence for fault in diagnose(facts)] + [f"{sentence}." for sentence in broken]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `retinue verify`."""
    parser.add_argument(
        "--url",
        default=os.environ.get(f"{PREFIX}URL") or DEFAULT_URL,
        help=f"the leader (default: RETINUE_URL, else {DEFAULT_URL}); a token is taken from RETINUE_TOKEN",
    )
    parser.add_argument("--followers", default="", metavar="URL,...", help="followers, where the leader does not tell")
    parser.add_argument("--dialect", metavar="NAME", help="what the server speaks (default: found out)")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="longest time to wait until all agree (60)"
    )
    parser.add_argument(
        "--quiet", type=float, default=5.0, metavar="S", help="give up when nothing has changed for so long (5)"
    )
    parser.add_argument(
        "--history",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="also check a history recorded by `retinue lab faults`: nothing acknowledged may be lost. Nobody else may "
        "have written to its keys",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Compare, say what differs, and return the exit code. Raises `ClusterError` when a node does not answer."""
    history = [operation for file in arguments.history for operation in _load(file)]
    followers = tuple(url.strip() for url in arguments.followers.split(",") if url.strip())
    where = Where(url=arguments.url, followers=followers, dialect=arguments.dialect)
    status = Console(stderr=True).status("waiting until all nodes agree")
    with status if sys.stderr.isatty() else nullcontext():
        findings = asyncio.run(verify(where, history, arguments.timeout, arguments.quiet))
    sentences = findings.sentences()
    if arguments.json:
        print(json.dumps(_as_plain(findings, sentences), ensure_ascii=False, indent=2))
    else:
        _show(findings, sentences)
    silent = findings.settled.silent
    if silent and not sentences:
        raise ClusterError(f"Not all nodes could be compared: {'; '.join(silent.values())}")
    return EXIT_VIOLATION if sentences else EXIT_DONE


async def verify(where: Where, history: Sequence[Operation], timeout_s: float, quiet_s: float) -> Findings:
    """Wait until all nodes agree, or nothing changes any more, and compare."""
    async with open_target(where, Settings()) as target:
        async for settled in settle(
            target, Watch(target), timeout_ms=timeout_s * 1000, quiet_ms=min(quiet_s, timeout_s) * 1000
        ):
            last = settled
        judgement = None
        if history:
            ended_ms = max(max(op.invoked_ms, op.completed_ms or 0.0) for op in history) + 1
            # Nobody knows whether the leadership moved, so only strong reads must have been the newest.
            levels = STRONG_ONLY if any(op.version for op in history) else FIXED_LEADER
            judgement = judge(history, last.dumps.get(last.leader), ended_ms, levels)
        return Findings(target.description, last, target.abilities.versions, history, judgement)


def _load(file: Path) -> list[Operation]:
    try:
        return load_history(file)
    except OSError as error:
        raise SettingsError(f"--history={file} cannot be read ({error.strerror}): name a recorded history.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--history={file} is no recorded history ({error}): name a file of JSON lines.") from None


def _show(findings: Findings, sentences: Sequence[str]) -> None:
    settled = findings.settled
    table = differences_table(settled)
    if table.rows:
        print_table(table)
    for sentence in sentences[:SHOWN_SENTENCES]:
        print_lines(f"Violation: {sentence}")
    if len(sentences) > SHOWN_SENTENCES:
        print_lines(f"and {counted(len(sentences) - SHOWN_SENTENCES, 'more violation')}")
    for why in settled.silent.values():
        print_lines(f"Not compared: {why}")
    keys = len(settled.dumps.get(settled.leader, {}))
    if settled.equal:
        print_lines(f"All {len(settled.dumps)} nodes agree on {counted(keys, 'key')}.")
    if findings.judgement and settled.leader in settled.dumps and not findings.judgement.lost:
        checked = f"None of the acknowledged writes in {counted(len(findings.history), 'operation')} is lost"
        undecided = findings.judgement.undecided
        print_lines(checked + (f"; {counted(undecided, 'key')} stayed undecided." if undecided else "."))


def differences_table(settled: Settled) -> Table:
    """The first differences, as rows."""
    found = [(node, each) for node, differences in settled.differences.items() for each in differences]
    return Table(
        title=f"Differences from {settled.leader} ({len(found)})",
        columns=["node", "key", "state", settled.leader, "version there", "the node has", "version"],
        rows=[
            [
                node,
                each.key,
                each.state.value,
                _shortened(each.leader.value) if each.leader else None,
                (each.leader.version or None) if each.leader else None,
                _shortened(each.node.value) if each.node else None,
                (each.node.version or None) if each.node else None,
            ]
            for node, each in found[:SHOWN_DIFFERENCES]
        ],
        notes=[f"The first {SHOWN_DIFFERENCES} of {len(found)}."] if len(found) > SHOWN_DIFFERENCES else [],
    )


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_VALUE else f"{text[: SHOWN_VALUE - 3]}..."


def _as_plain(findings: Findings, sentences: Sequence[str]) -> dict[str, object]:
    settled = findings.settled
    return {
        "target": findings.target,
        "leader": settled.leader,
        "equal": settled.equal,
        "waited_ms": round(settled.waited_ms, 1),
        "keys": len(settled.dumps.get(settled.leader, {})),
        "differences": [
            {
                "node": node,
                "key": each.key,
                "state": each.state.value,
                "leader": each.leader._asdict() if each.leader else None,
                "here": each.node._asdict() if each.node else None,
            }
            for node, differences in settled.differences.items()
            for each in differences
        ],
        "silent": settled.silent,
        "violations": list(sentences),
    }
