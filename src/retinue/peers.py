"""All links of one node: what goes where, through the simulated network, and who is still there.

A node accepts connections from whoever knows the peer secret, and dials every other member while it leads or wants to.
Requests (append, seal, ...) go out on the connection that this node dialed, answers on the newest that the asker
dialed. Replicated entries pass through the simulated network on their way out; see `retinue.network`.

Liveness is the link's own: the dialing side sends a ping every heartbeat, the other answers, and a link on which
nothing was heard for the peer timeout is closed. Nothing here depends on the protocol above.

The owner's callbacks are called inside `send` and `replicate` too and only note things; `on_received` may do anything.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterator
from functools import partial

from retinue.accepting import Acceptor, AcceptorEvents
from retinue.core.messages import (
    Ack,
    Append,
    Confirmed,
    Diverged,
    Entry,
    Event,
    Fetched,
    LinkDown,
    LinkFull,
    LinkUp,
    Message,
    Promise,
    Received,
    Rejected,
    Snapshot,
)
from retinue.delayed import DelayedEntries
from retinue.dialing import Dialer, DialerEvents
from retinue.frames import encode_frame, snapshot_frames
from retinue.handshake import (
    HANDSHAKE_TIMEOUT_S,
    Challenge,
    HandshakeFrame,
    Hello,
    Identity,
    Member,
    Welcome,
    make_hello,
    split_address,
)
from retinue.links import Link, LinkEvents
from retinue.network import Network
from retinue.peer import Peer, PeerStatus

__all__ = ["Identity", "Member", "PeerStatus", "Peers"]

# What may wait for one peer, delayed entries included, before it counts as not reading.
QUEUE_LIMIT_BYTES = 64 * 2**20

# The heartbeat came so late that this process itself was stopped: the silence was ours.
OWN_STALL_S = 1.0

# Looked up by type: `isinstance` asks the metaclass of every class that it is not.
_ANSWERS = frozenset((Promise, Ack, Confirmed, Fetched, Rejected, Diverged))


class Peers:
    """All links of one node.

    `identity` is asked whenever this node introduces itself. `on_received` gets what a link has brought at one go, and
    `on_event` `LinkUp`, `LinkDown` and `LinkFull` of links that this node dialed; closing them itself is none.
    `on_members(caller, your_name, members)` is called before a caller is welcomed, so that a node can take the name
    and the member list it is given; a sentence refuses the caller, "" accepts. `on_snapshot_done(peer)` comes once for
    every `send_snapshot`, always from the event loop, when its rows are no longer read: sent, replaced or given up.
    """

    def __init__(
        self,
        *,
        identity: Callable[[], Identity],
        network: Network,
        secret: bytes,
        on_event: Callable[[Event], None],
        on_received: Callable[[list[Received]], None],
        on_members: Callable[[str, str, tuple[Member, ...]], str],
        on_snapshot_done: Callable[[str], None],
        host: str,
        port: int,
        members: tuple[Member, ...] = (),
        peer_timeout_ms: float = 10_000,
        heartbeat_ms: float = 100,
        queue_limit_bytes: int = QUEUE_LIMIT_BYTES,
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
    ) -> None:
        self.port = port
        self._identity = identity
        self._network = network
        self._secret = secret
        self._on_event, self._on_received, self._on_snapshot_done = on_event, on_received, on_snapshot_done
        self._host = host
        self._peer_timeout_s = peer_timeout_ms / 1000
        self._heartbeat_s = min(heartbeat_ms, peer_timeout_ms / 3) / 1000
        self._server_tls = server_tls
        self._client_tls = client_tls
        self._members: dict[str, Member] = {}
        self._peers: dict[str, Peer] = {}
        self._links: set[Link] = set()
        self._dirty: list[Link] = []
        self._corked = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialing = False
        self._streams = 0
        self._server: asyncio.Server | None = None
        self._beat_handle: asyncio.TimerHandle | None = None
        self._make_link = partial(Link, self._link_events(), queue_limit_bytes)
        self._dialer_events = DialerEvents(
            self._make_link, self._connect, self._make_hello, self._opened_dialed, network.cut
        )
        self._acceptor = Acceptor(
            secret, AcceptorEvents(identity, on_members, self._opened_accepted, self._refused_caller, network.cut)
        )
        self.set_members(members)

    # --- starting and stopping ---

    async def start(self) -> None:
        """Accept connections; `port` is the real one from here on. Raises `OSError` if the address cannot be had."""
        self._loop = asyncio.get_running_loop()
        self._delayed = DelayedEntries(self._loop, self._network)
        tls = self._server_tls
        self._server = await self._loop.create_server(
            self._make_link, self._host, self.port, ssl=tls, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if tls else None
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._next_beat_s = time.monotonic() + self._heartbeat_s
        self._beat_handle = self._loop.call_later(self._heartbeat_s, self._beat)

    async def stop(self) -> None:
        """Close everything, without link events, and wait until it is closed; nothing to do before `start`."""
        if self._server is None or self._beat_handle is None:
            return
        self._beat_handle.cancel()
        self._server.close()
        self.close_links()
        waiting = [*self._tasks, *(link.lost for link in self._links)]
        for link in list(self._links):
            link.abort()
        await asyncio.gather(*waiting, return_exceptions=True)
        await self._server.wait_closed()
        self._delayed.close()

    def set_members(self, members: tuple[Member, ...]) -> None:
        """Know these members from now on, this node itself among them; links with others go. Raises `ValueError`."""
        for member in members:
            split_address(member.peer_address)
        before, self._members = self._members, {member.name: member for member in members}
        for name, old in before.items():
            new = self._members.get(name)
            if new is None or new.peer_address != old.peer_address:
                self._stop_dialing(self._peer(name))
        if self._dialing:
            self.open_links()

    def open_links(self) -> None:
        """Dial every other member and go on until `close_links`. Calling it again changes nothing."""
        self._dialing = True
        own_name = self._identity().name
        for name, member in self._members.items():
            peer = self._peer(name)
            if name != own_name and peer.dialer is None:
                peer.dialer = Dialer(name, member.peer_address, self._secret, self._dialer_events)
                self._tasks.add(peer.dialer.task)
                peer.dialer.task.add_done_callback(self._dialer_ended)

    def close_links(self) -> None:
        """Close the links that this node dialed, with all that was queued or delayed for them; tells no `LinkDown`."""
        self._dialing = False
        for peer in self._peers.values():
            link, peer.dialed = peer.dialed, None
            self._stop_dialing(peer)
            if link is not None:
                link.abort()

    # --- sending ---

    def send(self, to: str, message: Message) -> None:
        """Send without a simulated delay; dropped silently where there is no link."""
        link = self._route(to, message)
        if link is not None and not self._network.lost(to):
            link.enqueue(encode_frame(message))

    def replicate(self, to: list[str], message: Append, since_s: float | None = None) -> dict[str, list[float]] | None:
        """Send new entries, each copy with its own delay since `since_s` (`time.monotonic`), or from now on.

        Returns the delays drawn, in ms per entry; `None` where no follower in `to` has a simulated delay. A follower
        without a link is not in the result; one without a delay has zeros. A copy that is lost has its delay as well.
        """
        links = [peer.dialed for name in to if (peer := self._peers.get(name)) is not None and peer.dialed is not None]
        return self._delayed.replicate(links, message, time.monotonic() if since_s is None else since_s)

    def send_snapshot(self, to: str, head: Snapshot, rows: Iterator[list[Entry]]) -> None:
        """Stream `head` with `rows` in place of its entries; the receiver gets one `Snapshot`.

        `rows` is read as the link takes it, and closed if it has a `close`. A newer snapshot for the same peer
        replaces one under way. `on_snapshot_done` follows in any case.
        """
        link = self._route(to, head)
        if link is None or self._network.lost(to):
            self._loop.call_soon(self._on_snapshot_done, to)
            return
        self._streams += 1
        link.stream(snapshot_frames(self._streams, head, rows))

    def cork(self) -> None:
        """Write nothing until `flush`, which must follow in this loop tick: whoever queues much saves a turn of it.

        But for delayed entries that are due: they leave when they are, with what waits before them on their link.
        """
        self._corked = True

    def send_due(self) -> None:
        """Send the delayed entries that are due, if any: for whoever keeps the loop from it for long."""
        if not self._network.quiet:
            self._delayed.send_due()

    def flush(self) -> None:
        """Write what was queued in this loop tick now; without `cork` the loop does it at the end of the tick."""
        self._corked = False
        dirty, self._dirty = self._dirty, []
        for link in dirty:
            link.flush()

    def status(self) -> dict[str, PeerStatus]:
        """Every other node that is a member or has called."""
        own_name, now_s = self._identity().name, time.monotonic()
        return {name: peer.status(now_s) for name, peer in self._peers.items() if name != own_name}

    def _route(self, to: str, message: Message) -> Link | None:
        peer = self._peers.get(to)
        if peer is None:
            return None
        # A snapshot is a request of a leader and the answer to a fetch; only who leads has links open.
        if type(message) in _ANSWERS or (type(message) is Snapshot and not self._dialing):
            return peer.accepted
        return peer.dialed

    def _mark_dirty(self, link: Link) -> None:
        if not self._dirty and not self._corked:
            self._loop.call_soon(self.flush)
        self._dirty.append(link)

    # --- what dialers, the acceptor and links ask and tell ---

    def _link_events(self) -> LinkEvents:
        return LinkEvents(
            connected=self._connected,
            handshake=self._handshake,
            messages=self._received,
            dirty=self._mark_dirty,
            full=self._full,
            stream_done=self._stream_done,
            closed=self._closed,
            lost=self._links.discard,
            is_cut=self._network.cut,
        )

    async def _connect(self, link: Link, host: str, port: int) -> None:
        await self._loop.create_connection(lambda: link, host, port, ssl=self._client_tls)

    def _make_hello(self, challenge: Challenge, name: str) -> Hello:
        return make_hello(challenge, self._identity(), name, tuple(self._members.values()), self._secret)

    def _stop_dialing(self, peer: Peer) -> None:
        dialer, peer.dialer = peer.dialer, None
        if dialer is not None:
            dialer.stop()

    def _dialer_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "A dialer failed", "exception": error, "task": task})

    def _opened_dialed(self, link: Link, welcome: Welcome) -> None:
        self._peer(link.peer).dialed = link
        self._on_event(LinkUp(link.peer, welcome.node_id, welcome.cluster_id, welcome.promised))

    def _opened_accepted(self, link: Link) -> None:
        peer = self._peer(link.peer)
        older, peer.accepted = peer.accepted, link
        peer.refused = ""
        if older is not None:
            older.abort()

    def _refused_caller(self, caller: str, sentence: str) -> None:
        if caller in self._members:
            self._peer(caller).refused = sentence

    def _connected(self, link: Link) -> None:
        self._links.add(link)
        if not link.dialed:
            self._acceptor.connected(link)

    def _handshake(self, link: Link, frame: HandshakeFrame) -> None:
        if not link.dialed:
            self._acceptor.take(link, frame)
        elif (dialer := self._peer(link.peer).dialer) is not None:
            dialer.take(link, frame)

    def _received(self, link: Link, messages: list[Message]) -> None:
        self._on_received([Received(link.peer, message) for message in messages])

    def _full(self, link: Link) -> None:
        self._delayed.forget(link)
        if link.dialed and link.is_open:
            link.drop_queue()
            self._on_event(LinkFull(link.peer))
        else:
            link.abort("the peer does not read its answers")

    def _stream_done(self, link: Link) -> None:
        self._loop.call_soon(self._on_snapshot_done, link.peer)

    def _closed(self, link: Link) -> None:
        self._acceptor.closed(link)
        self._delayed.forget(link)
        if not link.is_open:
            return
        peer = self._peer(link.peer)
        peer.sent_bytes += link.sent_bytes
        peer.received_bytes += link.received_bytes
        if peer.accepted is link:
            peer.accepted = None
        elif peer.dialed is link:
            peer.dialed = None
            self._on_event(LinkDown(link.peer))

    # --- liveness ---

    def _beat(self) -> None:
        now_s = time.monotonic()
        late_s = now_s - self._next_beat_s
        for link in list(self._links):
            if late_s > OWN_STALL_S:
                link.made_s += late_s
                link.heard_s += late_s
            if link.is_open and now_s - link.heard_s > self._peer_timeout_s:
                link.abort(f"nothing was heard for {now_s - link.heard_s:.1f} s")
            elif link.is_open and link.dialed:
                link.ping()
        self._acceptor.expire(now_s)
        self._next_beat_s = now_s + self._heartbeat_s
        self._beat_handle = self._loop.call_later(self._heartbeat_s, self._beat)

    def _peer(self, name: str) -> Peer:
        return self._peers.setdefault(name, Peer())
