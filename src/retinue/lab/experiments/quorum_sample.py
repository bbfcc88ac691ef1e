"""What the experiment `quorum` measures, one flat row for each observation."""

from __future__ import annotations

import msgspec

WRITE = "write"
READ = "read"
REPLICA = "replica"

AT_ONCE = "at once"
SETTLED = "settled"


class QuorumSample(msgspec.Struct, frozen=True, kw_only=True):
    """A write, a read, or a comparison of one follower with the leader, as `kind` says. Times from the first write on.

    `drawn_ms`: the smallest latency that the delays of this write allow, the k-th smallest of those drawn.
    `server_ms`: how long the server says it took. `acked_by`, `acked_ms`: the followers that had the write when it was
    answered, and when. Of a comparison: `moment` is "at once" (after the last acknowledgement) or "settled" (when every
    copy must have arrived), `cells` the keys of the leader, and `missing`, `older`, `other` how many of them the
    follower lacks, has an older version of, or differs in otherwise (older values too, where no versions are told).
    """

    kind: str
    quorum: int
    begun_ms: float
    latency_ms: float
    key: str = ""
    node: str = ""
    outcome: str = ""
    drawn_ms: float | None = None
    server_ms: float | None = None
    version: int = 0
    acked_by: list[str] = []
    acked_ms: list[float] = []
    moment: str = ""
    cells: int = 0
    missing: int = 0
    older: int = 0
    other: int = 0
    detail: str = ""

    @property
    def differing(self) -> int:
        """Cells of a comparison that differ from the leader's."""
        return self.missing + self.older + self.other
