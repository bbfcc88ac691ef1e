"""What the doors ask of a node: writes, reads, lists, its state, and changes of its settings while it runs.

A request becomes an event for the core, its result becomes a receipt or one of the errors of `retinue.errors`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy
from itertools import islice

import msgspec

from retinue.core.messages import (
    Change,
    Condition,
    ConfigureRequested,
    Injected,
    Kind,
    Outcome,
    PromoteRequested,
    ReadResult,
    Reason,
    Result,
    Row,
    SessionRead,
    StrongRead,
    Write,
)
from retinue.driver import Driver
from retinue.errors import (
    InvalidValue,
    KeyNotFound,
    NotFound,
    NotLeader,
    NotServing,
    Overloaded,
    RetinueError,
    SettingsConflict,
)
from retinue.expiry import Expiry, alive
from retinue.overview import Overview
from retinue.peers import Member
from retinue.refusals import read_error, replicate_error, takeover_error, write_error
from retinue.settings import Settings
from retinue.store import Store
from retinue.told import Found, Page, Receipt
from retinue.waiting import Answer

__all__ = ["Found", "Node", "Page", "Receipt"]

CONFIGURE_TIMEOUT_MS = 10_000.0
PROMOTE_TIMEOUT_MS = 5_000.0
POLL_S = 0.02


class Node:
    """One node as the doors see it. `resp_port` is where the Redis protocol is served, `None` for nowhere."""

    def __init__(self, settings: Settings, store: Store, secret: bytes = b"") -> None:
        self.settings = settings
        self.driver = Driver(settings, store, secret)
        self.replica = self.driver.replica
        self.overview = Overview(self.driver)
        self.expiry = Expiry(self.driver)
        self.resp_port: int | None = None

    @property
    def name(self) -> str:
        """This node's member name."""
        return self.replica.name

    @property
    def members(self) -> tuple[Member, ...]:
        """All members, as far as this node knows them."""
        return self.driver.members

    # --- writes ---

    async def write(
        self,
        changes: tuple[Change, ...],
        *,
        batch: bool = False,
        condition: Condition | None = None,
        request_id: str = "",
        acks: int | None = None,
        timeout_ms: float | None = None,
    ) -> Receipt:
        """Write one change, or several as one. A delete of a single key asks for it to be there.

        Raises `NotLeader`, `NoLeader`, `NoQuorum`, `Overloaded`, `DiskLowError`, `KeyNotFound`, `ConditionFailed` and
        `RequestIdReused` when nothing was written, `QuorumTimeout` when the outcome is unknown.
        """
        driver = self.driver
        self._refuse_overload()
        if not batch and changes[0].kind == Kind.DELETE and condition is None:
            condition = Condition(present=True)
        if condition is not None:
            self.expiry.remove_if_over(changes[0].key)
        begun_ms = driver.now_ms
        deadline = begun_ms + (self.settings.write_timeout_ms if timeout_ms is None else timeout_ms)
        token, answer = driver.waiting.enter_future(deadline)
        driver.propose(Write(token, changes, deadline, batch, condition, request_id, acks))
        return self.receipt(await answer, begun_ms, "" if batch else changes[0].key)

    def put(self, change: Change, answered: Callable[[Answer], None]) -> float:
        """Store a value; `answered` gets what `receipt` makes a receipt of. The time at which it began, in ms.

        What `write` does, for whoever has no use for a coroutine. Raises `Overloaded`.
        """
        driver = self.driver
        self._refuse_overload()
        begun_ms = driver.now_ms
        deadline = begun_ms + self.settings.write_timeout_ms
        token = driver.waiting.enter(answered, deadline)
        driver.propose(Write(token, (change,), deadline))
        return begun_ms

    def _refuse_overload(self) -> None:
        if len(self.driver.waiting) >= self.settings.max_pending_writes:
            raise Overloaded("Too many requests wait on this node already: try again in a moment.")

    def receipt(self, result: Answer, begun_ms: float, key: str) -> Receipt:
        """The receipt of a write to `key` (empty for a batch) begun at `begun_ms`; raises the errors of `write`."""
        driver = self.driver
        assert isinstance(result, Result)
        delays_ms = driver.delays_ms.pop(result.version, None) if result.version else None
        if result.reason is not Reason.OK:
            raise write_error(result, key, self.leader_url())
        total_ms = driver.now_ms - begun_ms
        needed = min(result.required, len(result.acked_by))
        replication_ms = max([ms for _, ms in result.acked_by[:needed]], default=0.0)
        # By position, for keywords take three times as long, and this is done for every write.
        return Receipt(
            result.outcome.value,
            result.version,
            result.epoch,
            result.acks,
            result.required,
            result.acked_by,
            replication_ms,
            total_ms,
            delays_ms,
            result.replayed,
        )

    def write_state(self, version: int) -> dict[str, object]:
        """What this node knows of a version: `committed`, `pending`, or `unknown` on a follower that cannot tell.

        `kind`, `keys` and `idempotency_key` say which write it is: a take-over may have given the version to another
        one, or to none (`noop`). `kind` is `None` where that history is compacted. Raises `NotFound` for a version that
        this node has not seen.
        """
        replica = self.replica
        if version > replica.log.last:
            raise NotFound(f"Version {version} is not known here; the last one is {replica.log.last}.")
        leadership = replica.leadership
        if replica.is_committed(version):
            state = "committed"
        else:
            state = "pending" if leadership is not None else "unknown"
        holders = [] if leadership is None else [name for name, _ in leadership.holders(version)]
        entry = replica.log.above.get(version)
        if entry is None:
            entry = next(iter(self.driver.store.read_range(version - 1, version, 1)), None)
        return {
            "version": version,
            "state": state,
            "kind": None if entry is None else Kind(entry.kind).name.lower(),
            "keys": [] if entry is None else list(entry.touched()),
            "idempotency_key": (entry.request_id or None) if entry is not None else None,
            "acks": len(holders),
            "required_quorum": self.write_quorum,
            "acked_by": holders,
        }

    async def replicate(
        self, key: str, value: bytes, encoding: int, version: int, *, delete: bool = False, epoch: int | None = None
    ) -> dict[str, object]:
        """Accept one replicated entry through another door than the peer link, by the same rules.

        Raises `NotFollower` on the leader, `WindowExceeded` for a version too far ahead, `Conflict` for another epoch.
        """
        change = Change(Kind.DELETE, key) if delete else Change(Kind.PUT, key, value, encoding)
        token, answer = self.driver.waiting.enter_future()
        self.driver.post(Injected(token, version, epoch, change))
        result = await answer
        assert isinstance(result, Result)
        if result.reason is not Reason.OK:
            raise replicate_error(result, key)
        row = self.replica.log.newest(key)
        shown = None if row is None else row.version
        return {"status": "success", "key": key, "version": version, "current_version": shown, "node": self.name}

    # --- reads ---

    async def read(
        self, key: str, level: str | None, *, session: tuple[int, int] | None = None, timeout_ms: float | None = None
    ) -> Found:
        """Read a key: `committed` (default on the leader), `strong`, or `local` (default elsewhere).

        With a `session` token (epoch, version) the read waits until this node has what the token stands for. Raises
        `KeyNotFound`, `NotLeader` for committed and strong reads elsewhere, `NotServing` when it cannot be answered.
        """
        replica = self.replica
        leading = replica.leadership is not None
        if level is None:
            level = "committed" if leading else "local"
        if level != "local" and not leading:
            raise self._not_leader(f"a {level} read")
        await self.driver.settled()
        deadline = self.driver.now_ms + (self.settings.write_timeout_ms if timeout_ms is None else timeout_ms)
        if session is not None:
            row = await self._ask(key, SessionRead(0, key, session[0], session[1], deadline))
            if level != "strong":
                return self._found(key, row)
        if level == "strong":
            return self._found(key, await self._ask(key, StrongRead(0, key, deadline)))
        return self.read_now(key, level)

    def read_now(self, key: str, level: str | None = None) -> Found:
        """A committed or local read of what is `settled`, see the driver; raises `KeyNotFound` and `NotServing`."""
        replica = self.replica
        if level == "local" or (level is None and replica.leadership is None):
            return self._found(key, replica.read_local(key))
        self._refuse_unrecovered()
        return self._found(key, replica.read_committed(key))

    async def _ask(self, key: str, read: StrongRead | SessionRead) -> Row | None:
        token, answer = self.driver.waiting.enter_future(read.deadline, ReadResult(Reason.TIMEOUT))
        self.driver.post(msgspec.structs.replace(read, token=token))
        result = await answer
        assert isinstance(result, ReadResult)
        if result.reason is not Reason.OK:
            raise read_error(result.reason, key, self.leader_url())
        return result.row

    def _found(self, key: str, row: Row | None) -> Found:
        row = alive(row)
        if row is None or row.deleted:
            raise KeyNotFound(f"Key {key!r} has no value here.", key=key)
        return Found(key, row, self.name, self.role, self.replica.is_committed(row.version))

    def _refuse_unrecovered(self) -> None:
        if not self.replica.serving:
            raise NotServing("This node is taking over the leadership and cannot show committed values yet: try again.")

    def scan(self, prefix: str, after: str | None, limit: int, level: str | None) -> Page:
        """Up to `limit` keys with `prefix`, above `after`: a state that really existed, at the page's version.

        Raises `NotLeader` if committed state is asked for elsewhere, `NotServing` if this leader has none to show yet.
        """
        if level == "committed":
            if self.replica.leadership is None:
                raise self._not_leader("a committed list")
            self._refuse_unrecovered()
        living = (item for item in self.replica.scan(prefix, after) if alive(item[1]) is not None)
        items = list(islice(living, limit + 1))
        more = len(items) > limit
        return Page(items[:limit], items[limit - 1][0] if more else None, self.replica.log.trusted)

    def dump(self) -> list[tuple[str, Row]]:
        """All keys: the committed state on the leader, the newest rows elsewhere, in key order.

        Raises `NotServing` on a leader that cannot show committed state yet.
        """
        replica = self.replica
        if replica.leadership is None:
            return [item for item in replica.scan_local() if alive(item[1]) is not None]
        self._refuse_unrecovered()
        keys = sorted(replica.log.rows.keys() | replica.log.versions_of.keys())
        return [(key, row) for key in keys if (row := alive(replica.read_committed(key))) is not None]

    # --- what this node is ---

    @property
    def role(self) -> str:
        """`leader` or `follower`, for clients; a candidate shows as a follower."""
        return self.overview.role

    @property
    def write_quorum(self) -> int:
        """The write quorum in force, as far as this node knows."""
        return self.overview.write_quorum

    def leader_url(self) -> str | None:
        """The HTTP address of the leader that this node knows of."""
        return self.overview.leader_url()

    def health(self) -> dict[str, object]:
        """What a health check shows; raises `NotServing` with the reason when this node does not serve."""
        return self.overview.health()

    def lag(self) -> dict[str, float]:
        """How far this node is behind the leader, in versions and in ms since it heard from it; 0 on the leader."""
        return self.overview.lag()

    def status(self) -> dict[str, object]:
        """The cluster as this node sees it."""
        return self.overview.status()

    def _not_leader(self, what: str) -> RetinueError:
        leader = self.leader_url()
        cure = f"ask {leader}" if leader else "no leader is known here: find it with GET /leader, or promote a node"
        return NotLeader(f"This node is a follower and cannot serve {what}: {cure}.", leader=leader)

    # --- settings in force ---

    def config(self) -> dict[str, object]:
        """The settings in force: those of this node, and those of the cluster."""
        shown = self.settings.to_plain()
        shown |= {
            "node": self.name,
            "role": self.role,
            "write_quorum": self.write_quorum,
            "followers": [member.http_url for member in self.members if member.name != self.name],
            "members": [member.name for member in self.members],
            "resp_port": self.resp_port,
        }
        return shown | self.driver.network.settings()

    async def configure(self, patch: dict[str, object]) -> dict[str, object]:
        """Change the write quorum (on the leader) and the simulated network of this node's links.

        Everything is checked before anything changes. Raises `InvalidValue`, `SettingsConflict`, `NotLeader`, and the
        errors of a write.
        """
        peers = tuple(name for name in self.replica.members if name != self.name)
        network_patch = {name: value for name, value in patch.items() if name != "write_quorum"}
        try:
            copy(self.driver.network).configure(network_patch, peers)
        except ValueError as error:
            raise InvalidValue(str(error)) from None
        if "write_quorum" in patch:
            await self._set_quorum(patch["write_quorum"], len(peers))
        if network_patch:
            try:
                self.driver.network.configure(network_patch, peers)
            except SettingsConflict:
                raise SettingsConflict(
                    "While the write quorum was changed, another request changed the delays, and they exclude those "
                    "asked for: the write quorum is in force, the rest is not. Send the rest again.",
                    outcome="committed",
                ) from None
            self.driver.pace()
        return self.config()

    async def _set_quorum(self, quorum: object, followers: int) -> None:
        if self.replica.leadership is None:
            raise self._not_leader("a change of the write quorum")
        if not isinstance(quorum, int) or isinstance(quorum, bool) or not 0 <= quorum <= followers:
            raise InvalidValue(f"write_quorum must be a whole number from 0 to {followers}, the number of followers.")
        self.driver.forget_wanted_quorum()
        token, answer = self.driver.waiting.enter_future()
        self.driver.post(ConfigureRequested(token, quorum, self.driver.now_ms + CONFIGURE_TIMEOUT_MS))
        result = await answer
        assert isinstance(result, Result)
        if result.outcome is not Outcome.COMMITTED:
            raise write_error(result, "", self.leader_url())

    async def _followers_to_write_to(self, deadline: float) -> None:
        """Wait until as many followers are reachable as a write needs: whoever promotes a node wants to write to it."""
        while (leadership := self.replica.leadership) is not None and leadership.reachable < leadership.quorum:
            if self.driver.now_ms >= deadline:
                return
            await asyncio.sleep(POLL_S)

    async def promote(self, accept_loss: bool = False, timeout_ms: float | None = None) -> dict[str, object]:
        """Make this node the leader.

        Raises `NoQuorum` when too few nodes answer to be sure that no acknowledged write is lost; `accept_loss` goes on
        without them.
        """
        token, answer = self.driver.waiting.enter_future()
        deadline = self.driver.now_ms + (PROMOTE_TIMEOUT_MS if timeout_ms is None else timeout_ms)
        self.driver.post(PromoteRequested(token, accept_loss, deadline))
        result = await answer
        assert isinstance(result, Result)
        if result.outcome is not Outcome.COMMITTED:
            raise takeover_error(result, self.name)
        await self._followers_to_write_to(deadline)
        return {
            "status": "success",
            "message": f"Node {self.name} leads in epoch {self.replica.epoch}.",
            "node": self.name,
            "role": self.role,
            "epoch": self.replica.epoch,
            "version": self.replica.log.trusted,
        }
