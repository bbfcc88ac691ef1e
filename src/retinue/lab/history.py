"""What clients did and what they were told: the record that every checker reads.

One `Operation` for each request of a client, in any order, from the simulator or from real processes alike. A request
that was tried several times under one request id is one operation: from the first attempt to the final answer. A batch
is one operation for each of its keys, all with the same request id, version and times.

The file format is JSON lines: one operation a line, fields that have their default left out.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from pathlib import Path

import msgspec

PRESENT = -1
"""As `Operation.expected`: the key must be there, whatever its version."""

ABSENT = 0
"""As `Operation.expected`: the key must not be there."""


class Kind(enum.Enum):
    """What a client asked for. A `SCAN` has the prefix as its key, and a JSON object of key to value as observed."""

    READ = "read"
    PUT = "put"
    DELETE = "delete"
    SCAN = "scan"


class Outcome(enum.Enum):
    """What the client knows at the end.

    `FAILED`: it had no effect, for sure. `CONDITION_FAILED`: no effect either, and it says something about the state.
    `UNKNOWN`: it may take effect at any time after its invocation, or never.
    """

    OK = "ok"
    FAILED = "failed"
    CONDITION_FAILED = "condition_failed"
    UNKNOWN = "unknown"


class Level(enum.Enum):
    """What a read asked for (docs: guarantees). Writes have `NONE`."""

    NONE = ""
    STRONG = "strong"
    COMMITTED = "committed"
    SESSION = "session"
    PREFIX = "prefix"
    LOCAL = "local"


class Operation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request of one client.

    `value` is what a put wrote; `observed` what a read returned (`None`: the key was absent). `expected` is the
    condition of a write: a version, `ABSENT`, `PRESENT`, or `None` without one. `version` is the one that a write
    got, that a read returned (0 for an absent key), or that a failed condition met (0 for unknown). `completed_ms` is
    `None` as long as the outcome is unknown. `session` is the token (epoch, version) that a session read carried.
    Values ought to be unique in a history: only then can a checker say which write a read has seen.
    """

    client: str
    kind: Kind
    key: str
    invoked_ms: float
    completed_ms: float | None = None
    outcome: Outcome = Outcome.OK
    value: str | None = None
    observed: str | None = None
    expected: int | None = None
    version: int = 0
    request_id: str = ""
    level: Level = Level.NONE
    node: str = ""
    session: tuple[int, int] | None = None

    @property
    def is_write(self) -> bool:
        """Whether it asked for a change."""
        return self.kind is Kind.PUT or self.kind is Kind.DELETE

    @property
    def may_have_effect(self) -> bool:
        """Whether it is a write that took effect, or that nobody can exclude."""
        return self.is_write and (self.outcome is Outcome.OK or self.outcome is Outcome.UNKNOWN)

    def brief(self) -> str:
        """One line for a person."""
        end = "?" if self.completed_ms is None else f"{self.completed_ms:.1f}"
        what = self.observed if self.kind is Kind.READ else self.value
        condition = "" if self.expected is None else f" if={self.expected}"
        level = f" {self.level.value}@{self.node}" if self.level is not Level.NONE else ""
        return (
            f"{self.client} {self.kind.value} {self.key}={what!r}{condition}{level} "
            f"[{self.invoked_ms:.1f}..{end}] {self.outcome.value} v{self.version}"
        )


_decoder = msgspec.json.Decoder(Operation)


def encode_history(history: Iterable[Operation]) -> bytes:
    """A history as JSON lines."""
    encode = msgspec.json.encode
    return b"".join(encode(operation) + b"\n" for operation in history)


def save_history(path: Path, history: Iterable[Operation]) -> None:
    """Write a history as JSON lines; replaces the file. Raises OSError."""
    path.write_bytes(encode_history(history))


def load_history(path: Path) -> list[Operation]:
    """Read what `save_history` wrote. Raises OSError, or msgspec.DecodeError on a line that is no operation."""
    return [_decoder.decode(line) for line in path.read_bytes().splitlines() if line]
