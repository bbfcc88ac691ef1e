"""Any server that speaks one of the dialects, over HTTP. `running.py` is what a retinue cluster can do beyond that."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

from retinue.errors import ClusterError, RetinueError
from retinue.lab.connection import AnswerLost, NotSent, Pool, Reply, Servers
from retinue.lab.targets import recognition
from retinue.lab.targets.answers import MS, cells_from, seen_from, written_from
from retinue.lab.targets.contract import Abilities, Cell, NetworkConditions, Outcome, Seen, Unsuitable, Written
from retinue.lab.targets.dialects import Form, Spoken

LEADER = "leader"

WRITE_PATIENCE_MS = 30_000.0
READ_PATIENCE_MS = 10_000.0
MARGIN_MS = 1000.0
"""How much longer than the deadline of a request its answer is waited for."""

ASK_PATIENCE_S = 30.0


class HttpTarget:
    """A server, with its followers where they are known, that somebody else started.

    What it can do shows as it answers: `abilities.versions` and `acknowledgements` turn true with the first answer that
    has them. `write_quorum` is the one that the user says it is configured to.
    """

    def __init__(
        self, nodes: Mapping[str, Pool], spoken: Spoken, *, leader: str = LEADER, write_quorum: int | None = None
    ) -> None:
        self.write_quorum = write_quorum
        self._pools = dict(nodes)
        self._spoken = spoken
        self._leading = leader
        self._tells_versions = False
        self._tells_acknowledgements = False

    @classmethod
    async def connect(
        cls,
        servers: Servers,
        url: str,
        followers: Sequence[str] = (),
        *,
        dialect: str | None = None,
        write_quorum: int | None = None,
    ) -> HttpTarget:
        """Find out how a server is asked, and that it and its followers answer.

        Raises `SettingsError` for an address or a dialect that does not exist, `Unreachable`, and `ClusterError` for a
        server that is a follower or speaks no dialect.
        """
        leader = servers.at(url)
        spoken = await recognition.recognise(leader, dialect)
        if await recognition.follows(leader):
            raise ClusterError(f"The server at {leader.url} says that it is a follower: give the leader's address.")
        nodes = {LEADER: leader}
        nodes |= {f"follower{number}": servers.at(follower) for number, follower in enumerate(followers, 1)}
        target = cls(nodes, spoken, write_quorum=write_quorum)
        for pool in nodes.values():
            await recognition.ask(pool, "/health")
            await target._peek(pool)
        return target

    async def _peek(self, pool: Pool) -> None:
        """Look whether what a node shows has versions."""
        if self._spoken.dump is not None:
            with suppress(ValueError):
                cells = cells_from(await recognition.ask(pool, self._spoken.dump.path))
                self._tells_versions |= any(cell.version for cell in cells.values())

    # --- what it is ---

    @property
    def description(self) -> str:
        """What is measured, one line."""
        followers = len(self._pools) - 1
        known = f"with {followers} follower{'' if followers == 1 else 's'}" if followers else "followers not known"
        quorum = "" if self.write_quorum is None else f", write quorum {self.write_quorum} as configured there"
        return f"server at {self._pools[LEADER].url} that speaks the dialect {self._spoken}, {known}{quorum}"

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes, the leader first."""
        return tuple(self._pools)

    @property
    def abilities(self) -> Abilities:
        """What it can do, as far as it has shown."""
        return Abilities(
            versions=self._tells_versions,
            acknowledgements=self._tells_acknowledgements,
            deletes=self._spoken.delete is not None,
        )

    @property
    def network(self) -> NetworkConditions | None:
        """Nothing is known of it."""
        return None

    def now_ms(self) -> float:
        """The clock of all answers: this machine's monotonic clock."""
        return time.perf_counter() * MS

    async def leader(self) -> str | None:
        """The node that leads, if it answers."""
        try:
            await recognition.ask(self._pools[self._leading], "/health")
        except RetinueError:
            return None
        return self._leading

    # --- keys ---

    async def write(self, key: str, value: str, *, timeout_ms: float | None = None, request_id: str = "") -> Written:
        """Put a value."""
        return await self._change(self._spoken.write, key, value, timeout_ms, request_id)

    async def delete(self, key: str, *, timeout_ms: float | None = None, request_id: str = "") -> Written:
        """Delete a key."""
        if self._spoken.delete is None:
            now_ms = self.now_ms()
            return Written(
                outcome=Outcome.REFUSED, begun_ms=now_ms, ended_ms=now_ms, detail="This server has no way to delete."
            )
        return await self._change(self._spoken.delete, key, "", timeout_ms, request_id)

    async def read(self, node: str, key: str, *, session: str = "", level: str = "") -> Seen:
        """Read at one node."""
        begun_ms = self.now_ms()
        try:
            path = _joined(self._spoken.read.address(key), self._read_query(session, level))
            reply = await self._pool(node).ask("GET", path, patience_s=self._read_patience_ms() / MS)
        except (NotSent, AnswerLost) as error:
            why = f"{node} did not answer: {error}."
            return Seen(begun_ms=begun_ms, ended_ms=self.now_ms(), answered=False, detail=why)
        except RetinueError as error:
            return Seen(begun_ms=begun_ms, ended_ms=self.now_ms(), answered=False, detail=error.detail)
        seen = seen_from(reply, begun_ms, key)
        self._tells_versions |= seen.cell is not None and seen.cell.version > 0
        return seen

    async def dump(self, node: str) -> dict[str, Cell]:
        """Everything one node has. Raises `ClusterError` when it does not tell, `Unsuitable` when it cannot."""
        form = self._spoken.dump
        if form is None:
            raise Unsuitable("This server has no address that shows all keys: give it one, such as /dump.")
        try:
            cells = cells_from(await self._ask(node, form.method, form.path))
        except ValueError as error:
            raise ClusterError(f"{node} does not show its keys at {form.path}: {error}") from None
        self._tells_versions |= any(cell.version for cell in cells.values())
        return cells

    async def _change(self, form: Form, key: str, value: str, timeout_ms: float | None, request_id: str) -> Written:
        begun_ms = self.now_ms()
        patience_s = self._patience_ms(timeout_ms) / MS
        headers = self._write_headers(request_id)
        try:
            path = _joined(form.address(key), self._write_query(timeout_ms))
            body = form.body(key, value)
            reply = await self._pools[self._leading].ask(form.method, path, body, headers, patience_s)
            if self._moved(reply):
                reply = await self._pools[self._leading].ask(form.method, path, body, headers, patience_s)
        except (NotSent, AnswerLost) as error:
            outcome = Outcome.REFUSED if isinstance(error, NotSent) else Outcome.UNKNOWN
            why = f"{self._leading} did not answer: {error}."
            return Written(outcome=outcome, begun_ms=begun_ms, ended_ms=self.now_ms(), detail=why)
        except (RetinueError, UnicodeError) as error:
            return Written(outcome=Outcome.REFUSED, begun_ms=begun_ms, ended_ms=self.now_ms(), detail=str(error))
        written = written_from(
            reply, begun_ms, deleting=form is self._spoken.delete, wanted_acks=self._acks_to_ask_for()
        )
        self._tells_versions |= written.version > 0
        self._tells_acknowledgements |= bool(written.acked_by)
        return written

    # --- where a retinue cluster differs ---

    def _patience_ms(self, timeout_ms: float | None) -> float:
        return WRITE_PATIENCE_MS if timeout_ms is None else timeout_ms

    def _read_patience_ms(self) -> float:
        return READ_PATIENCE_MS

    def _write_query(self, timeout_ms: float | None) -> list[str]:
        return []

    def _write_headers(self, request_id: str) -> Mapping[str, str] | None:
        return None

    def _read_query(self, session: str, level: str) -> list[str]:
        return []

    def _acks_to_ask_for(self) -> int | None:
        return None

    def _moved(self, reply: Reply) -> bool:
        """Whether an answer to a write says that another node leads, which is `_leading` then."""
        return False

    # --- what cannot be done to a server of somebody else ---

    async def set_quorum(self, quorum: int) -> None:
        """Nothing, where it is the one that is configured. Raises `Unsuitable` for any other."""
        if quorum != self.write_quorum:
            configured = "not told" if self.write_quorum is None else f"told: {self.write_quorum}"
            raise Unsuitable(
                f"The write quorum of {self._pools[LEADER].url} ({configured}) cannot be set to {quorum} from here: "
                "start it with that quorum, and say which it is."
            )

    async def set_network(self, conditions: NetworkConditions) -> None:
        """Raises `Unsuitable`."""
        raise Unsuitable(
            f"The simulated network of {self._pools[LEADER].url} cannot be changed by a request: start it with the "
            "delays, in most labs MIN_DELAY and MAX_DELAY in its environment."
        )

    async def kill(self, node: str) -> None:
        """Raises `Unsuitable`."""
        self._cannot("kill", node)

    async def pause(self, node: str) -> None:
        """Raises `Unsuitable`."""
        self._cannot("pause", node)

    async def resume(self, node: str) -> None:
        """Raises `Unsuitable`."""
        self._cannot("resume", node)

    async def start(self, node: str) -> None:
        """Raises `Unsuitable`."""
        self._cannot("start", node)

    async def cut_off(self, node: str) -> None:
        """Raises `Unsuitable`."""
        self._cannot("cut off", node)

    async def heal(self, node: str) -> None:
        """Raises `Unsuitable`."""
        self._cannot("heal", node)

    async def promote(self, node: str) -> None:
        """Raises `Unsuitable`."""
        self._cannot("promote", node)

    def _cannot(self, verb: str, node: str) -> NoReturn:
        raise Unsuitable(
            f"Only who started this cluster can {verb} {node}: leave out the address, and a cluster is started for the "
            "experiment."
        )

    # --- asking ---

    def _pool(self, node: str) -> Pool:
        if node not in self._pools:
            raise ClusterError(f"There is no node {node}: the nodes are {', '.join(self._pools)}.")
        return self._pools[node]

    async def _ask(
        self, node: str, method: str, path: str, body: object = None, patience_s: float = ASK_PATIENCE_S
    ) -> Reply:
        """Any other request to a node. Raises `ClusterError` when it does not answer."""
        pool = self._pool(node)
        try:
            return await pool.ask(method, path, body, patience_s=patience_s)
        except (NotSent, AnswerLost) as error:
            raise ClusterError(f"{node} at {pool.url} did not answer {method} {path}: {error}.") from None


def _joined(path: str, parameters: list[str]) -> str:
    """A path that may have a query, with more parameters."""
    return f"{path}{'&' if '?' in path else '?'}{'&'.join(parameters)}" if parameters else path
