"""A retinue cluster that runs already: everything that its public doors can do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote

from retinue.errors import ClusterError, NoLeader, NotLeader, RetinueError, SettingsError, from_problem
from retinue.http.request import TIMEOUT_LEAST_MS, TIMEOUT_LIMIT_MS
from retinue.lab.connection import AnswerLost, NotSent, Pool, Reply, Servers, parse_address
from retinue.lab.targets.contract import Abilities, NetworkConditions, Unsuitable
from retinue.lab.targets.dialects import Spoken
from retinue.lab.targets.http import ASK_PATIENCE_S, MARGIN_MS, HttpTarget
from retinue.lab.targets.recognition import ask, checked

PROBE_PATIENCE_S = 2.0

_REFUSED = (401, 403)


@dataclass(frozen=True)
class Found:
    """The nodes of a cluster, the leader first; its configuration; and what this client may change.

    `urls`: the name of the node that each address means, as the nodes themselves write addresses.
    """

    pools: dict[str, Pool]
    urls: dict[str, str]
    config: Mapping[str, object]
    changes_quorum: bool
    changes_network: bool


async def find_cluster(servers: Servers, url: str, followers: Sequence[str] = ()) -> Found:
    """The cluster of the node at `url`. `followers` are their addresses, where the ones that the node has do not do.

    Raises `NoLeader` when no node leads, `Unauthorized` without the token that reading needs, `ClusterError`, and
    `Unreachable` for a follower in `followers` that does not answer.
    """
    first = servers.at(url)
    status = checked(await ask(first, "/status"), first.url)
    members = status.get("members")
    listed = members if isinstance(members, list) else []
    urls = {str(member["url"]): str(member["name"]) for member in listed if isinstance(member, dict)}
    pools = {name: servers.at(url) for url, name in urls.items()} if not followers else {}
    pools[str(status["node"])] = first
    for follower in followers:
        pool = servers.at(follower)
        health = await ask(pool, "/health")
        pools[str(health.told.get("node", pool.url))] = pool
    await _check_names(pools)
    leader = await leader_of(pools)
    if leader is None:
        raise NoLeader(f"No node of the cluster at {first.url} leads: wait, or let one lead with `retinue promote`.")
    pools = {leader: pools[leader], **pools}
    config = checked(await ask(pools[leader], "/config"), pools[leader].url)
    may_change = await _may(pools[leader], {})
    same_network = {"max_delay_ms": config.get("max_delay_ms")}
    return Found(pools, urls, config, may_change, may_change and await _may(pools[leader], same_network))


async def _check_names(pools: Mapping[str, Pool]) -> None:
    """Nodes in containers call each other by names that nobody else knows; better to say so before measuring."""
    for name, pool in pools.items():
        try:
            await asyncio.get_running_loop().getaddrinfo(pool.address.host, pool.address.port)
        except OSError:
            raise ClusterError(
                f"The cluster has {name} at {pool.url}, a name that is not known here: give the followers' addresses "
                "as they are reached from here with --followers URL,URL,..."
            ) from None


async def _may(pool: Pool, same: Mapping[str, object]) -> bool:
    """Whether this client may change the configuration; asked with a change that changes nothing."""
    try:
        return (await pool.ask("PATCH", "/config", same, patience_s=ASK_PATIENCE_S)).status not in _REFUSED
    except (NotSent, AnswerLost) as error:
        raise ClusterError(f"The node at {pool.url} did not answer PATCH /config ({error}).") from None


async def leader_of(pools: Mapping[str, Pool]) -> str | None:
    """The node that leads in the newest epoch, of those that answer."""

    async def epoch_led(pool: Pool) -> int:
        try:
            health = await pool.ask("GET", "/health", patience_s=PROBE_PATIENCE_S)
        except (NotSent, AnswerLost):
            return -1
        epoch = health.told.get("epoch")
        return epoch if health.status == 200 and health.told.get("role") == "leader" and isinstance(epoch, int) else -1

    epochs = await asyncio.gather(*(epoch_led(pool) for pool in pools.values()))
    newest = max(epochs)
    return list(pools)[epochs.index(newest)] if newest >= 0 else None


class RunningCluster(HttpTarget):
    """A retinue cluster. `seed`: what its simulated delays are drawn from, from each `set_network` on.

    Writes follow the leader when a node names another one. Where this client may not change the write quorum, each
    write asks for its acknowledgements (`?w=`) instead.
    """

    def __init__(self, found: Found, spoken: Spoken, *, seed: int | None = None) -> None:
        quorum = found.config.get("write_quorum")
        super().__init__(
            found.pools,
            spoken,
            leader=next(iter(found.pools)),
            write_quorum=quorum if isinstance(quorum, int) else None,
        )
        self._found = found
        self._seed = seed
        self._asked_acks: int | None = None
        self._network = self._first_network = _network_of(found.config)
        self._first_quorum = self.write_quorum
        timeout_ms = found.config.get("write_timeout_ms")
        self._write_timeout_ms = float(timeout_ms) if isinstance(timeout_ms, int | float) else 0.0

    # --- what it is ---

    @property
    def description(self) -> str:
        """What is measured, one line."""
        how = ", the write quorum asked for with each write (?w=) because this client may not change the cluster's"
        url = next(iter(self._pools.values())).url
        return f"retinue cluster at {url}, {self._size()}{'' if self._asked_acks is None else how}"

    def _size(self) -> str:
        followers = len(self._pools) - 1
        return f"leader and {followers} follower{'' if followers == 1 else 's'}"

    @property
    def abilities(self) -> Abilities:
        """What it can do."""
        return Abilities(
            quorum=True,
            network=self._found.changes_network,
            versions=True,
            sessions=True,
            acknowledgements=True,
            delays=True,
            deletes=self._spoken.delete is not None,
        )

    @property
    def network(self) -> NetworkConditions | None:
        """The simulated network of the leader's links."""
        return self._network

    async def leader(self) -> str | None:
        """The node that leads in the newest epoch, of those that answer soon; writes go there from now on."""
        leader = await leader_of(self._pools)
        self._leading = leader or self._leading
        return leader

    # --- changes ---

    async def set_quorum(self, quorum: int) -> None:
        """Change the cluster's write quorum, or ask for it with each write where that is refused."""
        followers = len(self._pools) - 1
        if not 0 <= quorum <= followers:
            raise SettingsError(f"The write quorum {quorum} is not possible: the cluster has {followers} followers.")
        if self._found.changes_quorum:
            await self._patch({"write_quorum": quorum})
            self.write_quorum = quorum
        else:
            self._asked_acks = quorum

    async def set_network(self, conditions: NetworkConditions) -> None:
        """Simulate this network on all nodes that answer; the leader's links are the ones that matter."""
        if not self._found.changes_network:
            if conditions == self._network:
                return
            raise Unsuitable(
                f"The simulated network of {self._pools[self._leading].url} cannot be changed by this client: put an "
                "admin token into RETINUE_TOKEN, or start the nodes with these delays (MIN_DELAY, MAX_DELAY, "
                "RETINUE_DELAY_DISTRIBUTION and RETINUE_IN_ORDER_DELIVERY in their environment)."
            )
        await self._simulate(conditions, self._seed)

    async def _simulate(self, conditions: NetworkConditions, seed: object) -> None:
        patch = {
            "min_delay_ms": conditions.min_ms,
            "max_delay_ms": conditions.max_ms,
            "delay_distribution": conditions.distribution,
            "in_order_delivery": conditions.in_order,
            "seed": seed,
        }
        self._network = _network_of(await self._patch(patch))
        others = [pool for node, pool in self._pools.items() if node != self._leading]
        # Any of them may lead later; one that does not answer now is left as it is.
        await asyncio.gather(
            *(pool.ask("PATCH", "/config", patch, patience_s=PROBE_PATIENCE_S) for pool in others),
            return_exceptions=True,
        )

    async def restore(self) -> None:
        """Put back the write quorum and the network that were in force at first, if the cluster still answers."""
        with suppress(RetinueError):
            if self._network != self._first_network:
                await self._simulate(self._first_network, self._found.config.get("seed"))
            if self._first_quorum is not None and self.write_quorum != self._first_quorum:
                await self.set_quorum(self._first_quorum)

    async def promote(self, node: str) -> None:
        """Make a node the leader; writes go there from now on. Raises what the node tells, such as `NoQuorum`."""
        reply = await self._ask(node, "POST", "/promote", {})
        if reply.status != 200:
            raise from_problem(reply.status, reply.told)
        self._leading = node

    async def _patch(self, patch: Mapping[str, object]) -> Mapping[str, object]:
        """Change the configuration of the leader; what it is then."""
        reply = await self._ask(self._leading, "PATCH", "/config", patch)
        if reply.status == NotLeader.status and (self._moved(reply) or await self.leader() is not None):
            reply = await self._ask(self._leading, "PATCH", "/config", patch)
        if reply.status != 200:
            raise from_problem(reply.status, reply.told)
        return reply.told

    # --- how a write and a read are asked ---

    def _patience_ms(self, timeout_ms: float | None) -> float:
        return (self._write_timeout_ms if timeout_ms is None else timeout_ms) + MARGIN_MS

    def _read_patience_ms(self) -> float:
        return self._write_timeout_ms + MARGIN_MS

    def _write_query(self, timeout_ms: float | None) -> list[str]:
        query = [] if self._asked_acks is None else [f"w={self._asked_acks}"]
        if timeout_ms is not None:
            query.append(f"timeout_ms={min(max(timeout_ms, TIMEOUT_LEAST_MS), TIMEOUT_LIMIT_MS):.3f}")
        return query

    def _write_headers(self, request_id: str) -> Mapping[str, str] | None:
        return {"Idempotency-Key": request_id} if request_id else None

    def _read_query(self, session: str, level: str) -> list[str]:
        query = [f"min_version={quote(session)}"] if session else []
        return [*query, f"read={quote(level)}"] if level else query

    def _acks_to_ask_for(self) -> int | None:
        return self._asked_acks

    def _moved(self, reply: Reply) -> bool:
        told = reply.told.get("leader") if reply.status == NotLeader.status else None
        name = self._name_of(told) if isinstance(told, str) else None
        if name is None or name == self._leading:
            return False
        self._leading = name
        return True

    def _name_of(self, url: str) -> str | None:
        """The node that an address means."""
        known = {pool.url: name for name, pool in self._pools.items()} | self._found.urls
        try:
            name = known.get(url) or known.get(parse_address(url).url)
        except SettingsError:
            return None
        return name if name in self._pools else None


def _network_of(config: Mapping[str, object]) -> NetworkConditions:
    """The simulated network in the answer of `/config`."""
    low, high, distribution = (config.get(name) for name in ("min_delay_ms", "max_delay_ms", "delay_distribution"))
    return NetworkConditions(
        distribution=str(distribution),
        min_ms=float(low) if isinstance(low, int | float) else 0.0,
        max_ms=float(high) if isinstance(high, int | float) else 0.0,
        in_order=config.get("in_order_delivery") is True,
    )
