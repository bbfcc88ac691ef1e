"""Real links between nodes in one event loop, and what each node was told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import uvloop

from retinue.core.messages import Append, Entry, Event, Kind, LinkUp, Message, Received
from retinue.frames import FrameReader, encode_frame
from retinue.handshake import Hello, decode_handshake, make_welcome, new_challenge
from retinue.network import Conditions, Network
from retinue.peers import Identity, Member, Peers

SECRET = b"a secret of the test"
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


class LinkedNode:
    """One node's links. `events` is what it was told, `sent` the peers whose snapshots are done.

    `arrived_s` has the time at which each version came, `introductions` how often it said who it is.
    """

    def __init__(self, name: str, *, cluster_id: str = "", secret: bytes = SECRET, **options: Any) -> None:
        self.name = name
        self.cluster_id = cluster_id
        self.events: list[Event] = []
        self.sent: list[str] = []
        self.arrived_s: dict[int, float] = {}
        self.introductions = 0
        self.heard: list[tuple[str, str, tuple[Member, ...]]] = []
        self.network = Network(options.pop("conditions", Conditions()), seed=1)
        self.peers = Peers(
            **{"host": "127.0.0.1", "port": 0, "heartbeat_ms": 20, **options},
            identity=self._identity,
            network=self.network,
            secret=secret,
            on_event=self.events.append,
            on_received=self._on_received,
            on_members=self._on_members,
            on_snapshot_done=self.sent.append,
        )

    def _identity(self) -> Identity:
        self.introductions += 1
        return Identity(self.name, f"id-{self.name}", self.cluster_id, 7, "http://x")

    def _on_received(self, received: list[Received]) -> None:
        self.events += received
        for event in received:
            if isinstance(event.message, Append):
                self.arrived_s.update((entry.version, time.monotonic()) for entry in event.message.entries)

    def _on_members(self, caller: str, your_name: str, members: tuple[Member, ...]) -> str:
        self.heard.append((caller, your_name, members))
        return "This node takes no calls from mallory." if caller == "mallory" else ""

    @property
    def member(self) -> Member:
        return Member(self.name, f"127.0.0.1:{self.peers.port}", "http://x")

    def told(self, kind: type[Event]) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def messages(self) -> list[Message]:
        return [event.message for event in self.told(Received)]

    @property
    def entries(self) -> list[Entry]:
        """Every entry that arrived in an append."""
        return [entry for message in self.messages if isinstance(message, Append) for entry in message.entries]


async def until(condition: Callable[[], object], timeout_s: float = 20) -> None:
    """Wait for a condition; `AssertionError` if it does not come true."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "the condition did not come true in time"
        await asyncio.sleep(0.003)


@contextmanager
def machine_watched() -> Iterator[Callable[[], float]]:
    """Measures how long, altogether and in seconds, a thread that only sleeps was kept waiting for a core meanwhile."""
    lost_s, ended = [0.0], threading.Event()

    def sleep() -> None:
        while not ended.is_set():
            begin_s = time.monotonic()
            time.sleep(0.003)
            lost_s.append(time.monotonic() - begin_s - 0.003)

    thread = threading.Thread(target=sleep)
    thread.start()
    try:
        yield lambda: sum(lost_s)
    finally:
        ended.set()
        thread.join()


@asynccontextmanager
async def linked(
    *names: str, leader_options: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[list[LinkedNode]]:
    """Nodes of which the first has links with all others, up and running; no task may be left at the end."""
    nodes = [LinkedNode(name, **{**options, **((leader_options or {}) if name == names[0] else {})}) for name in names]
    try:
        for node in nodes:
            await node.peers.start()
        nodes[0].peers.set_members(tuple(node.member for node in nodes))
        nodes[0].peers.open_links()
        await until(lambda: len(nodes[0].told(LinkUp)) == len(names) - 1)
        yield nodes
    finally:
        for node in nodes:
            await node.peers.stop()
    assert not [task for task in asyncio.all_tasks() if "/src/retinue/" in repr(task)]


def run(
    scenario: Coroutine[Any, Any, None], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> None:
    """Run a scenario on its own event loop, uvloop unless told otherwise."""
    with asyncio.Runner(loop_factory=loop_factory or uvloop.new_event_loop) as runner:
        runner.run(scenario)


def append(*versions: int, size: int = 100, epoch: int = 1, start: int = 1, commit: int = 0) -> Append:
    """An append of entries with values of `size` bytes."""
    entries = [Entry(version, epoch, Kind.PUT, f"key{version}", b"v" * size) for version in versions]
    return Append(epoch, start, commit, entries)


@asynccontextmanager
async def impostor(name: str, sends: bytes = b"") -> AsyncIterator[tuple[Member, asyncio.Event]]:
    """A follower that welcomes one caller after the other, sends `sends` and then does nothing, until `reading` is set.

    To the caller this is a half-open link, as after a pulled cable. Yields the member and `reading`.
    """
    reading = asyncio.Event()
    serving: dict[asyncio.Task[Any] | None, asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving[asyncio.current_task()] = writer
        challenge = new_challenge()
        writer.write(encode_frame(challenge))
        (payload,) = FrameReader(2**16).feed(await reader.read(2**16))
        hello = decode_handshake(payload)
        assert isinstance(hello, Hello)
        writer.write(encode_frame(make_welcome(challenge, hello, Identity(name, "id", "", 7, ""), SECRET)) + sends)
        await reading.wait()
        with suppress(ConnectionError):
            await reader.read(-1)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Member(name, f"127.0.0.1:{server.sockets[0].getsockname()[1]}", ""), reading
    finally:
        reading.set()
        server.close()
        for writer in serving.values():
            writer.transport.abort()
        await asyncio.gather(*(task for task in serving if task is not None))
        await server.wait_closed()


def kernel_timers() -> int:
    """How many timers of the kernel this process has open."""
    if not Path("/proc/self/fd").exists():
        return 0
    kinds = []
    for fd in Path("/proc/self/fd").iterdir():
        try:
            kinds.append(str(fd.readlink()))
        except FileNotFoundError:
            continue
    return kinds.count("anon_inode:[timerfd]")
