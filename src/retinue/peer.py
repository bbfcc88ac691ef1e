"""What is known of one peer."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from retinue.dialing import Dialer
from retinue.links import Link


class PeerStatus(msgspec.Struct, frozen=True):
    """One peer as this node sees it. Times in ms, `None` before the first; bytes since start.

    `refused` is why one of the two does not take the link, `unreachable` why there is no connection; else empty.
    """

    connected: bool
    last_heard_ms: float | None
    round_trip_ms: float | None
    queued_bytes: int
    sent_bytes: int
    received_bytes: int
    refused: str
    unreachable: str


@dataclass(slots=True)
class Peer:
    """What is known of one peer; `sent_bytes` and `received_bytes` count the links that are gone.

    `refused` is why its last call was not taken.
    """

    dialed: Link | None = None
    accepted: Link | None = None
    dialer: Dialer | None = None
    refused: str = ""
    sent_bytes: int = 0
    received_bytes: int = 0

    def links(self) -> list[Link]:
        """The connections there are, the one that this node dialed first."""
        return [link for link in (self.dialed, self.accepted) if link is not None]

    def status(self, now_s: float) -> PeerStatus:
        """As this node sees the peer now; `now_s` on the clock of `time.monotonic`."""
        links = self.links()
        round_trips = [link.round_trip_ms for link in links if link.round_trip_ms is not None]
        return PeerStatus(
            connected=bool(links),
            last_heard_ms=(now_s - max(link.heard_s for link in links)) * 1000 if links else None,
            round_trip_ms=round_trips[0] if round_trips else None,
            queued_bytes=sum(link.queued_bytes for link in links),
            sent_bytes=self.sent_bytes + sum(link.sent_bytes for link in links),
            received_bytes=self.received_bytes + sum(link.received_bytes for link in links),
            refused=self.dialer.refused if self.dialer is not None else self.refused,
            unreachable=self.dialer.unreachable if self.dialer is not None else "",
        )
