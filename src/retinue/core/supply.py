"""Supplying followers: new entries at once, missing ones by range, compacted ones by snapshot, and heartbeats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinue.core.messages import Heartbeat, Seal, Send, SendRange, SendSnapshot

if TYPE_CHECKING:
    from retinue.core.leader import Leadership
    from retinue.core.progress import Progress


class Supply:
    """What the leader sends to each follower, and when it sends it again."""

    def __init__(self, leadership: Leadership) -> None:
        self.leadership = leadership
        self.replica = leadership.replica
        self.log = leadership.log

    def live_for(self, last: int) -> list[str]:
        """Followers that get new entries up to `last` at once; one that is too far behind leaves live mode."""
        names = []
        for progress in self.leadership.progress.values():
            if progress.live and last - progress.contiguous > self.replica.limits.window:
                progress.live = False
            if progress.live:
                if progress.contiguous >= progress.sent:  # nothing was under way: the clock of the next starts now
                    progress.since_ms = self.replica.now
                progress.sent = last
                progress.commit_sent = self.log.trusted
                names.append(progress.name)
        return names

    def seal(self, progress: Progress) -> None:
        """Ask for the promise that everything else depends on."""
        replica, configuration = self.replica, self.log.configuration
        assert configuration is not None
        progress.since_ms = replica.now
        birth = replica.birth_of(progress.name, progress.node_id)
        message = Seal(self.leadership.epoch, replica.cluster_id, birth, False, configuration.write_quorum)
        replica.out.append(Send(progress.name, message))

    def feed(self, progress: Progress) -> None:
        """Send the next range to a follower that is catching up and has acknowledged the one before."""
        if progress.snapshot and progress.contiguous >= progress.sent:
            progress.snapshot = False
        if not progress.live and not progress.snapshot and progress.contiguous >= progress.sent:
            self._send_more(progress)

    def _send_more(self, progress: Progress) -> None:
        """The next range; a snapshot if the log no longer reaches so far down.

        A range that ends the log makes the follower live.
        """
        if not progress.linked or not progress.promised or progress.diverged:
            return
        log = self.log
        progress.since_ms = self.replica.now
        if progress.contiguous < log.floor:
            progress.snapshot = True
            progress.sent = log.trusted
            head = self.replica.make_snapshot(self.leadership.epoch, self.leadership.start)
            self.replica.out.append(SendSnapshot(progress.name, head))
            return
        progress.sent = min(progress.contiguous + self.replica.limits.catch_up_batch, log.last)
        progress.live = progress.sent == log.last
        self._send_range(progress, progress.sent)

    def _send_range(self, progress: Progress, upto: int) -> None:
        if upto > progress.contiguous:
            leadership = self.leadership
            self.replica.out.append(
                SendRange(
                    progress.name, leadership.epoch, leadership.start, self.log.trusted, progress.contiguous, upto
                )
            )

    def tick(self) -> None:
        """Send again what has not been acknowledged for too long, and heartbeats."""
        now, limits = self.replica.now, self.replica.limits
        for progress in self.leadership.progress.values():
            if not progress.linked:
                continue
            if not progress.promised:
                if now >= progress.since_ms + limits.seal_retry_ms:
                    self.seal(progress)
                continue
            patience_ms = limits.snapshot_retry_ms if progress.snapshot else self.replica.retransmit_ms
            if progress.contiguous < progress.sent and now >= progress.since_ms + patience_ms:
                self._send_again(progress)
            if progress.commit_sent < self.log.trusted or now >= progress.beat_ms + limits.heartbeat_ms:
                self._beat(progress)

    def _send_again(self, progress: Progress) -> None:
        if progress.live and progress.contiguous >= self.log.floor:
            progress.since_ms = self.replica.now
            self._send_range(progress, min(progress.contiguous + self.replica.limits.catch_up_batch, progress.sent))
        else:
            progress.live = progress.snapshot = False
            self._send_more(progress)

    def _beat(self, progress: Progress) -> None:
        progress.beat_ms = self.replica.now
        progress.commit_sent = self.log.trusted
        message = Heartbeat(self.leadership.epoch, self.leadership.start, self.log.trusted, self.log.chain)
        self.replica.out.append(Send(progress.name, message))
