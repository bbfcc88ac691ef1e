"""The contract between an experiment and the cluster that it measures.

An experiment sees nothing but a `Target`. It runs in an event loop and takes the time from `Target.now_ms`; to wait it
uses `asyncio.sleep`. On a simulated target both are virtual, so the same code takes seconds there instead of minutes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import msgspec

from retinue.errors import EXIT_USAGE, RetinueError


class Unsuitable(RetinueError):
    """The target cannot do what an experiment needs."""

    status = 400
    title = "Not possible here"
    exit_code = EXIT_USAGE


class Outcome(enum.Enum):
    """What a client knows of its write.

    `COMMITTED`: as many followers as asked for have it. `REFUSED`: it had no effect, for sure. `UNKNOWN`: it may take
    effect at any time, or never. `FAILED`: the server answered something that says neither.
    """

    COMMITTED = "committed"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    FAILED = "failed"


class Acknowledgement(NamedTuple):
    """A follower that had the write when it was answered, and how many ms after the version was assigned."""

    node: str
    ms: float


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a write (a put or a delete), with the times on the target's clock.

    `version`: 0 where the server does not tell. `acked_by`: in order of arrival, empty where the server does not tell.
    `delays_ms`: the simulated delay that was drawn for each follower; `None` where nothing is simulated, or the server
    does not tell. `server_ms`: how long the server says that it took. `session`: the token that a read of one's own
    write carries. `detail`: what a failure said, one sentence.
    """

    outcome: Outcome
    begun_ms: float
    ended_ms: float
    version: int = 0
    acked_by: tuple[Acknowledgement, ...] = ()
    delays_ms: Mapping[str, float] | None = None
    server_ms: float | None = None
    session: str = ""
    detail: str = ""

    @property
    def latency_ms(self) -> float:
        """What the client waited."""
        return self.ended_ms - self.begun_ms


class Cell(NamedTuple):
    """What one node has under a key: the value as text, and its version (0 where the server does not tell)."""

    value: str
    version: int


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a read. `cell` is `None` for an absent key; `answered` is false when the node gave no answer."""

    begun_ms: float
    ended_ms: float
    answered: bool
    cell: Cell | None = None
    detail: str = ""


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a target can do beyond writing and reading. An experiment that needs more says so with `Unsuitable`.

    `quorum`: `set_quorum` works. `network`: `set_network` works. `versions`: cells have versions. `sessions`: reads
    take a session token. `acknowledgements`: answers tell who has the write and when. `delays`: answers tell the delays
    that were drawn. `faults`: nodes can be killed, paused, cut off and started. `deletes`: there is a delete.
    `virtual`: time is virtual.
    """

    quorum: bool = False
    network: bool = False
    versions: bool = False
    sessions: bool = False
    acknowledgements: bool = False
    delays: bool = False
    faults: bool = False
    deletes: bool = True
    virtual: bool = False


class NetworkConditions(msgspec.Struct, frozen=True, kw_only=True):
    """The simulated network of the leader's links; see `retinue.network.Conditions` for the meaning of the laws.

    `in_order`: a link delivers entries in the order in which they were sent, as one TCP connection does.
    """

    distribution: str = "uniform"
    min_ms: float = 0.0
    max_ms: float = 0.0
    in_order: bool = False


class Target(Protocol):
    """A cluster as its clients see it. `nodes` are the names of its nodes, the leader's first at the start.

    `write`, `delete` and `read` never raise: what goes wrong is in the answer. The others raise a `RetinueError` with
    one sentence: `ClusterError` when the cluster cannot be reached (any more), `Unsuitable` for what it cannot do.
    `description` says in one line what it is, for the report.
    """

    @property
    def description(self) -> str:
        """What is measured, such as "6 local processes, in memory"."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes, the leader first."""

    @property
    def abilities(self) -> Abilities:
        """What it can do."""

    @property
    def network(self) -> NetworkConditions | None:
        """The simulated network in force, as far as the target can tell; `None` where it cannot."""

    def now_ms(self) -> float:
        """The clock of all answers."""

    async def write(self, key: str, value: str, *, timeout_ms: float | None = None, request_id: str = "") -> Written:
        """Put a value."""

    async def delete(self, key: str, *, timeout_ms: float | None = None, request_id: str = "") -> Written:
        """Delete a key. One that was absent counts as committed, with version 0."""

    async def read(self, node: str, key: str, *, session: str = "", level: str = "") -> Seen:
        """Read at one node: what it has, or (with `session`) what it has once it knows the token's write.

        `level`: `committed` or `strong`, where the target has levels; empty is the node's own choice.
        """

    async def dump(self, node: str) -> dict[str, Cell]:
        """Everything one node has."""

    async def set_quorum(self, quorum: int) -> None:
        """Answer the writes that come from now on after `quorum` followers have them."""

    async def set_network(self, conditions: NetworkConditions) -> None:
        """Simulate this network from now on."""

    async def leader(self) -> str | None:
        """The node that leads now, as far as anybody can tell."""

    async def kill(self, node: str) -> None:
        """End a node's process at once (SIGKILL)."""

    async def pause(self, node: str) -> None:
        """Stop a node's process without ending it (SIGSTOP)."""

    async def resume(self, node: str) -> None:
        """Let a paused node go on."""

    async def start(self, node: str) -> None:
        """Start a killed node on the data that it has. Returns when its process runs; it may not serve yet."""

    async def cut_off(self, node: str) -> None:
        """Let nothing pass between this node and all others."""

    async def heal(self, node: str) -> None:
        """End `cut_off`."""

    async def promote(self, node: str) -> None:
        """Make a node the leader."""
