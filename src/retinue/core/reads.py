"""What a read may return.

| level | rule |
|---|---|
| local | the newest row here, committed or not |
| prefix (scans) | rows of the trusted prefix: a state that really existed |
| session | what the token stands for is here: the whole prefix is trusted, or the very row is accepted |
| committed | on a leader past its recovery barrier: the highest committed version |
| strong | the same, and a round that began after the read confirmed the leadership |

Only the last two need a leader, and only the last one needs anybody else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from retinue.core.messages import Effect, ReadResult, Reason, Reply, Row, SessionRead, StrongRead

if TYPE_CHECKING:
    from retinue.core.leader import Leadership
    from retinue.core.log import Log


class Reads:
    """The part of a `Replica` that answers reads. Nothing here changes what the node holds."""

    log: Log
    leadership: Leadership | None
    now: float
    out: list[Effect]
    session_reads: list[SessionRead]

    @property
    def _committed(self) -> Collection[int]:
        """Versions above the trusted prefix that this node knows to be committed."""
        return self.leadership.committed if self.leadership is not None else ()

    def read_local(self, key: str) -> Row | None:
        """The newest row here, committed or not; `None` for an absent or deleted key."""
        row = self.log.newest(key)
        return None if row is None or row.deleted else row

    def read_committed(self, key: str) -> Row | None:
        """On the leader: the committed value of a key; `None` for an absent one. Ask `serving` first."""
        row = self.log.newest_in(key, self._committed)
        return None if row is None or row.deleted else row

    def is_committed(self, version: int) -> bool:
        """Whether this node knows that a version is committed."""
        return version <= self.log.trusted or version in self._committed

    def scan(self, prefix: str = "", after: str | None = None) -> Iterator[tuple[str, Row]]:
        """Trusted rows with `prefix`, above `after`, in key order: a state that really existed, at `log.trusted`."""
        rows = self.log.rows
        return ((key, rows[key]) for key in self.log.keys(prefix, after))

    def scan_local(self) -> Iterator[tuple[str, Row]]:
        """The newest row of every key here, committed or not, in key order."""
        keys = self.log.rows.keys() | self.log.versions_of.keys()
        return ((key, row) for key in sorted(keys) if (row := self.read_local(key)) is not None)

    def session_row(self, read: SessionRead) -> tuple[bool, Row | None]:
        """Whether this node has what the token stands for, and the row to answer with.

        Either the whole prefix is trusted, or the row that the token is about is here: of its version, and of an accept
        epoch that is not older. A newer row that is not trusted may never commit, so it would break monotonic reads.
        """
        log, committed = self.log, self._committed
        if log.trusted >= read.version:
            return True, log.newest_in(read.key, committed)
        for version in log.versions_of.get(read.key, ()):
            known = version == read.version and log.above[version].epoch >= read.epoch
            if (version >= read.version and version in committed) or (known and self.leadership is None):
                return True, log.row_at(version, read.key)
        return False, None

    def answer_sessions(self) -> None:
        """Answer the session reads that this node can serve now, and those whose deadline has passed."""
        if self.session_reads:
            reads, self.session_reads = self.session_reads, []
            for read in reads:
                self._on_session_read(read)

    def _on_strong_read(self, event: StrongRead) -> None:
        if self.leadership is not None:
            self.leadership.strong_read(event)
        else:
            self.out.append(Reply(event.token, ReadResult(Reason.NOT_LEADER)))

    def _on_session_read(self, event: SessionRead) -> None:
        if self.leadership is not None and not self.leadership.recovered:
            ready, row = False, None
        else:
            ready, row = self.session_row(event)
        if ready:
            self.out.append(Reply(event.token, ReadResult(Reason.OK, row)))
        elif event.deadline <= self.now:
            self.out.append(Reply(event.token, ReadResult(Reason.TIMEOUT)))
        else:
            self.session_reads.append(event)
