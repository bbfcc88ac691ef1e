"""One follower as the leader sees it.

A follower is *live* when every new entry goes to it at once; otherwise it is *catching up*: it gets one range of
entries after another, each when the one before is acknowledged, until a range reaches the end of the log. One that
lacks what the leader has already compacted gets a snapshot first. A slow follower thus costs the leader a bounded
window, and the others do not notice.
"""

from __future__ import annotations


class Progress:
    """What one follower has acknowledged in the leader's epoch, and what it has been sent.

    `contiguous`: every version up to it is durable there. `acked`: versions above that which are durable there as well.
    `sent`: the highest version sent. `since_ms`: when `contiguous` last moved, or something was sent again.
    `ack_ms`: moving average of the time from assignment to acknowledgement.
    `admit_at`: a learner may vote once it has this version and all below (`None`: it is no learner).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.node_id = ""
        self.linked = False
        self.promised = False
        self.voter = False
        self.diverged = False
        self.live = False
        self.snapshot = False
        self.contiguous = 0
        self.acked: set[int] = set()
        self.trusted = 0
        self.sent = 0
        self.since_ms = 0.0
        self.heard_ms = 0.0
        self.beat_ms = 0.0
        self.commit_sent = -1
        self.ack_ms = 0.0
        self.admit_at: int | None = None

    @property
    def reachable(self) -> bool:
        """Whether a write may count on this follower: linked, not in quarantine, and allowed to vote.

        One that has not answered its seal yet counts: it will have a round trip later, and a write that comes right
        after a take-over must not be refused for that.
        """
        return self.linked and not self.diverged and (self.voter or not self.promised)

    def holds(self, version: int) -> bool:
        """Whether the follower has acknowledged `version`."""
        return version <= self.contiguous or version in self.acked

    def acknowledge(self, versions: list[int], contiguous: int, decided: int) -> list[int]:
        """Note an acknowledgement; the versions above `decided` that it newly covers, in ascending order."""
        acked = self.acked
        news: list[int] = []
        if contiguous > self.contiguous:
            news = list(range(max(self.contiguous, decided) + 1, contiguous + 1))
            if acked:
                news = [version for version in news if version not in acked]
                acked.difference_update(range(self.contiguous + 1, contiguous + 1))
            self.contiguous = contiguous
        if versions:
            beyond = {version for version in versions if version > self.contiguous and version not in acked}
            acked |= beyond
            news += [version for version in sorted(beyond) if version > decided]
        while acked and self.contiguous + 1 in acked:
            self.contiguous += 1
            acked.remove(self.contiguous)
        if self.contiguous > self.sent:
            self.sent = self.contiguous
        return news

    def restart(self, node_id: str) -> None:
        """A link came up. Another node id is another node: what the earlier one acknowledged is gone with its disk."""
        if node_id != self.node_id:
            self.node_id = node_id
            self.contiguous, self.trusted = 0, 0
            self.acked = set()
            self.diverged = False
            self.admit_at = None
        self.linked = True
        self.promised = self.live = self.snapshot = self.voter = False
        self.commit_sent = -1
