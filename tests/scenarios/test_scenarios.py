"""Tricky schedules, step by step, with the outcome that the protocol promises.

Each `*.txt` beside this file is one script: a cluster of six nodes in memory, in which nothing happens by chance. A
line is a step or, with `expect`, a check. Node names are `leader`, `f1` .. `f5`. A line `kills: NAME ...` names the
mutants of the protocol that must not get through the script.

    write ID KEY=VALUE [at NODE] [if=VERSION|absent] [id=REQUEST]      ask a node to write; `KEY=-` deletes
    read ID KEY [at NODE]                                              a strong read
    hold KIND [from NODE] [to NODE ..] [with VERSION]                  keep messages back: append, ack, seal, ...
    release | lose                                                     deliver what is held back, or lose it
    cut NODE .. | heal | stop NODE .. | start NODE .. | restart NODE | wipe NODE | promote NODE | advance MS
    expect write ID committed VERSION | unknown | REASON | waiting
    expect read ID VALUE | absent | REASON | waiting
    expect row NODE VERSION put KEY=VALUE | delete KEY | noop | none   what is on its disk
    expect role NODE leader|candidate|follower [serving] | promised NODE EPOCH | voter NODE yes|no | converged
"""

from __future__ import annotations

from pathlib import Path

import pytest

from retinue.core.messages import (
    Append,
    Change,
    Condition,
    Entry,
    Kind,
    Outcome,
    PromoteRequested,
    ReadResult,
    Reason,
    Started,
    StrongRead,
    Write,
)
from retinue.core.replica import Replica
from retinue.lab.mutants import MUTANTS
from tests.core.cluster import Cluster
from tests.core.parts import FOREVER

SCRIPTS = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.txt"))}


def kills(path: Path) -> list[str]:
    """The mutants that a script must stop."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [name for line in lines if line.startswith("kills:") for name in line.split()[1:]]


class Stage(Cluster):
    """The cluster of a script. `replica` is the core, or a mutant of it."""

    def __init__(self, replica: type[Replica]) -> None:
        self.replica = replica
        self.tokens: dict[str, int] = {}
        super().__init__()

    def start(self, name: str, *, lead: bool = False) -> None:
        """Start a node on what its disk holds."""
        self.nodes[name] = self.replica(
            name, self.names, self.disks[name].image(), write_quorum=self.write_quorum, limits=self.limits
        )
        self.step(name, Started(lead, "c"))
        for dialer in sorted(self._dialers - {name}):
            self._link(dialer, name)

    def play(self, line: str) -> None:
        """One line of a script."""
        words = [_name(word) for word in line.split()]
        if words[0] == "expect":
            getattr(self, f"expect_{words[1]}")(*words[2:])
        else:
            step = getattr(self, f"do_{words[0]}", None) or getattr(self, words[0])
            step(*words[1:])
            self.run()

    # --- steps ---

    def token(self, label: str) -> int:
        return self.tokens.setdefault(label, len(self.tokens) + 1000)

    def do_write(self, label: str, pair: str, *options: str) -> None:
        key, value = pair.split("=")
        change = Change(Kind.DELETE, key) if value == "-" else Change(Kind.PUT, key, value.encode())
        given = dict(option.split("=") for option in options if "=" in option)
        condition = None
        if "if" in given:
            absent = given["if"] == "absent"
            condition = Condition(absent=True) if absent else Condition(version=int(given["if"]))
        node = options[options.index("at") + 1] if "at" in options else "leader"
        request_id = given.get("id", "")
        self.propose(Write(self.token(label), (change,), FOREVER, condition=condition, request_id=request_id), to=node)

    def do_read(self, label: str, key: str, *options: str) -> None:
        self.step(options[1] if options else "leader", StrongRead(self.token(label), key, FOREVER))

    def do_hold(self, kind: str, *options: str) -> None:
        places: dict[str, list[str]] = {"from": [], "to": [], "with": []}
        current: list[str] = []
        for option in options:
            if option in places:
                current = places[option]
            else:
                current.append(option)
        versions = {int(version) for version in places["with"]}

        def match(sender: str, to: str, message: object) -> bool:
            held = type(message).__name__.lower() == kind
            held = (
                held and (not places["from"] or sender in places["from"]) and (not places["to"] or to in places["to"])
            )
            if held and versions and isinstance(message, Append):
                return any(entry.version in versions for entry in message.entries)
            return held

        self.hold(match)

    def do_start(self, *nodes: str) -> None:
        for node in nodes:
            self.start(node)

    def do_promote(self, node: str) -> None:
        self.step(node, PromoteRequested(self.token(f"promote {node} {self.now}"), False, FOREVER))

    def do_advance(self, ms: str) -> None:
        self.advance(float(ms))

    # --- checks ---

    def expect_write(self, label: str, what: str, version: str = "") -> None:
        result = self.replies.get(self.token(label))
        if what == "waiting":
            assert result is None, result
            return
        assert result is not None, f"{label} is not answered"
        assert not isinstance(result, ReadResult)
        if what in (Outcome.COMMITTED.value, Outcome.UNKNOWN.value):
            assert result.outcome.value == what, result
            assert not version or result.version == int(version), result
        else:
            assert result.reason is Reason(what), result

    def expect_read(self, label: str, what: str) -> None:
        result = self.replies.get(self.token(label))
        if what == "waiting":
            assert result is None, result
            return
        assert isinstance(result, ReadResult), f"{label} is not answered"
        if what in {reason.value for reason in Reason}:
            assert result.reason is Reason(what), result
            return
        assert result.reason is Reason.OK, result
        value = None if result.row is None or result.row.deleted else result.row.value.decode()
        assert value == (None if what == "absent" else what), result

    def expect_row(self, node: str, version: str, *content: str) -> None:
        row = self.disks[node].rows.get(int(version))
        assert _describe(row) == " ".join(content), f"{node} has {_describe(row)} at {version}"

    def expect_role(self, node: str, role: str, serving: str = "") -> None:
        replica = self.nodes[node]
        assert (replica.role, replica.serving) == (role, serving == "serving")

    def expect_promised(self, node: str, epoch: str) -> None:
        assert self.disks[node].hard.promised == int(epoch)

    def expect_voter(self, node: str, voter: str) -> None:
        assert self.nodes[node].may_vote == (voter == "yes")

    def expect_converged(self) -> None:
        self.assert_converged()


def _name(word: str) -> str:
    return f"follower{word[1]}" if len(word) == 2 and word[0] == "f" and word[1].isdigit() else word


def _describe(row: Entry | None) -> str:
    if row is None:
        return "none"
    pairs = [f"{row.key}={row.value.decode()}"] if row.kind == Kind.PUT else [row.key] if row.key else []
    return " ".join([Kind(row.kind).name.lower(), *pairs])


def play(path: Path, replica: type[Replica]) -> None:
    """Play a script; raises AssertionError with the line that went wrong."""
    stage = Stage(replica)
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith(("#", "kills:")):
            continue
        try:
            stage.play(line)
        except AssertionError as error:
            raise AssertionError(f"{path.name}:{number}: {line}: {error}") from error


@pytest.mark.parametrize("name", SCRIPTS)
def test_scenario(name: str) -> None:
    play(SCRIPTS[name], Replica)


@pytest.mark.parametrize(("name", "mutant"), [(name, mutant) for name in SCRIPTS for mutant in kills(SCRIPTS[name])])
def test_scenario_stops_the_mutant(name: str, mutant: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        play(SCRIPTS[name], MUTANTS[mutant].variant.replica)
