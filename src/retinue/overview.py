"""What a node shows of itself and of the cluster: its role, health, lag, and the state of each follower."""

from __future__ import annotations

import time

from retinue.core.progress import Progress
from retinue.core.quorum import promises_needed
from retinue.driver import Driver
from retinue.errors import NotServing

MS = 1000.0


class Overview:
    """One node as it sees itself."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.replica = driver.replica
        self.started_s = time.monotonic()

    @property
    def name(self) -> str:
        """This node's member name."""
        return self.replica.name

    @property
    def role(self) -> str:
        """`leader` or `follower`, for clients; a candidate shows as a follower."""
        return "leader" if self.replica.leadership is not None else "follower"

    @property
    def write_quorum(self) -> int:
        """The write quorum in force, as far as this node knows."""
        replica = self.replica
        if replica.leadership is not None:
            return replica.leadership.quorum
        configuration = replica.log.configuration
        return replica.founding_quorum if configuration is None else configuration.write_quorum

    def leader_url(self) -> str | None:
        """The HTTP address of the leader that this node knows of."""
        return self.driver.url_of(self.replica.leader)

    def health(self) -> dict[str, object]:
        """What a health check shows; raises `NotServing` with the reason when this node does not serve."""
        replica = self.replica
        if not self.driver.started:
            raise NotServing(f"Node {self.name} is starting.")
        if replica.quarantined:
            raise NotServing(
                f"Node {self.name} is in quarantine: its history differs from the leader's. Stop it, wipe its data "
                "directory and start it again; it will copy everything from the leader."
            )
        if replica.takeover is not None:
            takeover = replica.takeover
            answered = max(len(takeover.links) + 1, len(takeover.answers))
            raise NotServing(
                f"Node {self.name} is taking over: {answered} of the {takeover.needed} nodes it needs have answered."
            )
        if replica.leadership is not None and not replica.serving:
            raise NotServing(f"Node {self.name} leads and is still bringing the last writes to the write quorum.")
        if self.driver.settings.role == "leader" and not replica.cluster_id:
            raise NotServing(
                f"Node {self.name} has an empty data directory, but the followers belong to a cluster already, so it "
                "founds none: promote a follower, and this node will copy everything from it."
            )
        return {
            "status": "healthy",
            "role": self.role,
            "node": self.name,
            "epoch": replica.epoch,
            "version": replica.log.trusted,
            "leader": self.leader_url(),
            "write_quorum": self.write_quorum,
            "uptime_s": round(time.monotonic() - self.started_s, 3),
        }

    def lag(self) -> dict[str, float]:
        """How far this node is behind the leader, in versions and in ms since it heard from it; 0 on the leader."""
        replica = self.replica
        if replica.leadership is not None:
            return {"versions": 0, "ms": 0.0}
        heard_ms = replica.acceptor.heard_ms
        silent_ms = self.driver.now_ms - heard_ms if heard_ms else (time.monotonic() - self.started_s) * MS
        return {"versions": max(replica.acceptor.commit - replica.log.trusted, 0), "ms": round(silent_ms, 3)}

    def status(self) -> dict[str, object]:
        """The cluster as this node sees it."""
        replica, log = self.replica, self.replica.log
        leadership = replica.leadership
        return {
            "node": self.name,
            "node_id": replica.node_id,
            "cluster_id": replica.cluster_id,
            "role": replica.role,
            "leader": replica.leader,
            "leader_url": self.leader_url(),
            "epoch": replica.epoch,
            "serving": replica.serving,
            "voter": replica.may_vote,
            "quarantined": replica.quarantined,
            "trusted": log.trusted,
            "last_version": log.last,
            "commit": log.trusted if leadership is not None else replica.acceptor.commit,
            "floor": log.floor,
            "chain": f"{log.chain:08x}",
            "keys": len(log.rows),
            "pending_writes": 0 if leadership is None else len(leadership.pending) - len(leadership.patient),
            "write_quorum": self.write_quorum,
            "takeover_quorum": promises_needed(max(replica.nodes, 1), self.write_quorum),
            "disk_low": replica.disk_low or self.driver.disk_full,
            "lag": self.lag(),
            "members": [{"name": member.name, "url": member.http_url} for member in self.driver.members],
            "followers": self._followers(),
            "storage": self.driver.store.opened.sentence,
        }

    def _followers(self) -> list[dict[str, object]]:
        leadership = self.replica.leadership
        if leadership is None:
            return []
        links = self.driver.peers.status()
        now_ms, last = self.driver.now_ms, self.replica.log.last
        shown: list[dict[str, object]] = []
        for name, progress in leadership.progress.items():
            link = links.get(name)
            if not progress.linked:
                state = "unreachable"
            elif progress.diverged:
                state = "quarantined"
            else:
                state = "live" if progress.live else "snapshot" if progress.snapshot else "catching_up"
            shown.append(
                {
                    "name": name,
                    "url": self.driver.url_of(name),
                    "state": state,
                    "voter": progress.voter,
                    "contiguous": progress.contiguous,
                    "trusted": progress.trusted,
                    "lag_versions": last - progress.contiguous,
                    "lag_ms": _lag_ms(progress, now_ms) if progress.contiguous < last else 0.0,
                    "ack_ms": round(progress.ack_ms, 3),
                    "link": link,
                }
            )
        return shown


def _lag_ms(progress: Progress, now_ms: float) -> float | None:
    """For how long a follower has been behind; `None` for one that was never reached."""
    return round(now_ms - progress.since_ms, 3) if progress.since_ms else None
