"""Every message, event and effect of the replication protocol, one frozen class each.

Three families, told apart by where they come from and where they go:

* **messages** travel between nodes (`Seal`, `Append`, `Ack`, ...);
* **events** go into the core (`Proposed`, `Received`, `Tick`, ...);
* **effects** come out of it, and the driver performs them in order (`SaveEntries`, `Send`, `Reply`, ...).

All times are milliseconds on the driver's monotonic clock. Versions start at 1; 0 means "none yet".
"""

from __future__ import annotations

import enum
import struct
import zlib

import msgspec


class Kind(enum.IntEnum):
    """What an entry does to the state."""

    NOOP = 0
    PUT = 1
    DELETE = 2
    BATCH = 3
    CONFIG = 4


class Encoding(enum.IntEnum):
    """How the bytes of a value are meant.

    `RAW` is a string of bytes; a JSON string is stored as its UTF-8 bytes. `JSON` is the text of any other JSON value.
    """

    RAW = 0
    JSON = 1


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One key put or deleted: the content of an entry, or one part of a batch.

    `expires_ms` is wall-clock time in milliseconds since 1970 from which on the value counts as absent; 0 means never.
    The core carries it and never compares it with a clock.
    """

    kind: int
    key: str
    value: bytes = b""
    encoding: int = Encoding.RAW
    expires_ms: int = 0


# Members of an enumeration cost a lookup each time, and these are asked for every entry.
_PUT, _DELETE, _BATCH = int(Kind.PUT), int(Kind.DELETE), int(Kind.BATCH)

_pack_head = struct.Struct("<qqqqIII").pack


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One slot of the log: what the leader gave `version` in `epoch`.

    `epoch` is the accept epoch: the leadership under which this copy was last written. Only it may differ between the
    copies of a committed version. A batch carries its changes as MessagePack in `value`. An entry of one key is also
    the state that it gives this key, see `Row`.
    """

    version: int
    epoch: int
    kind: int
    key: str = ""
    value: bytes = b""
    encoding: int = Encoding.RAW
    request_id: str = ""
    expires_ms: int = 0

    @property
    def part(self) -> int:
        """Which part of its entry the state of a key comes from; of one that is no batch there is only this."""
        return 0

    @property
    def deleted(self) -> bool:
        """Whether the key has no value after this."""
        return self.kind == _DELETE

    def changes(self) -> tuple[Change, ...]:
        """The keys this entry puts or deletes; empty for a noop or a configuration."""
        if self.kind == _PUT or self.kind == _DELETE:
            return (Change(self.kind, self.key, self.value, self.encoding, self.expires_ms),)
        if self.kind == _BATCH:
            return _decode_changes(self.value)
        return ()

    def touched(self) -> tuple[str, ...]:
        """The keys of `changes`, in the same order."""
        if self.kind == _PUT or self.kind == _DELETE:
            return (self.key,)
        return tuple([change.key for change in self.changes()])

    def checksum(self, before: int = 0) -> int:
        """CRC-32 of the content, continued from the checksum `before` of all earlier versions.

        The accept epoch is left out: copies of one version agree on all but that.
        """
        key, request_id, value = self.key.encode(), self.request_id, self.value
        raw_id = request_id.encode() if request_id else b""
        head = _pack_head(self.version, self.kind, self.encoding, self.expires_ms, len(key), len(raw_id), len(value))
        return zlib.crc32(value, zlib.crc32(head + key + raw_id, before))

    def fingerprint(self) -> int:
        """CRC-32 of what a client asked for, to tell a retry from another request under the same id."""
        return request_fingerprint(self.kind, self.key, self.value, self.encoding, self.expires_ms)


def request_fingerprint(kind: int, key: str, value: bytes, encoding: int, expires_ms: int = 0) -> int:
    """CRC-32 of a request's payload; equal for a retry, different for another payload."""
    return _with_expiry(zlib.crc32(value, zlib.crc32(f"{kind:d} {encoding:d} {key}".encode())), expires_ms)


def _with_expiry(checksum: int, expires_ms: int) -> int:
    return zlib.crc32(b" %d" % expires_ms, checksum) if expires_ms else checksum


def encode_changes(changes: tuple[Change, ...]) -> bytes:
    """The value of a batch entry."""
    return msgspec.msgpack.encode(changes)


_changes_decoder = msgspec.msgpack.Decoder(tuple[Change, ...])


def _decode_changes(value: bytes) -> tuple[Change, ...]:
    return _changes_decoder.decode(value)


class Configuration(msgspec.Struct, frozen=True):
    """What travels with the log beside keys: the write quorum, and which node id speaks for a replaced member.

    A member that is not in `members` votes if it says of itself that it may; see `Replica` on births and learners.
    """

    write_quorum: int
    members: dict[str, str] = {}


class HardState(msgspec.Struct, frozen=True):
    """What a node must never forget. One row of the store; written in the same transaction as the entries.

    `cluster_id` is empty on a blank node. `node_id` is random and made with the data directory, so a wiped node is
    recognised. `nodes` is the fixed size of the cluster. `voter` says whether promises and acknowledgements of this
    node count. `births` is kept by the node that founded the cluster: the first node id seen under each name. `chain`
    is the checksum chain over versions 1..trusted. `configuration` is the one in force at `trusted`; `None` on a blank
    node.
    """

    node_id: str
    name: str = ""
    nodes: int = 0
    cluster_id: str = ""
    promised: int = 0
    trusted: int = 0
    floor: int = 0
    chain: int = 0
    configuration: Configuration | None = None
    configuration_version: int = 0
    voter: bool = False
    founder: bool = False
    births: dict[str, str] = {}
    quarantined: bool = False


class Image(msgspec.Struct, frozen=True):
    """A node's whole durable state, as the store loads it: hard state, epoch -> first version, rows by version."""

    hard: HardState
    epochs: dict[int, int]
    entries: list[Entry]


# --- messages, leader (or candidate) to follower ---


class Seal(msgspec.Struct, frozen=True, array_like=True, tag="seal"):
    """Ask for a promise never to accept an epoch below `epoch`.

    `birth` is the id of the node that may vote from its first promise on, though it is blank; empty if there is none.
    By id, because a message on its way to a node may reach the one that has replaced it. `tail` asks for the entries
    above the trusted prefix. `write_quorum` is the founding configuration, for blank nodes.
    """

    epoch: int
    cluster_id: str
    birth: str
    tail: bool
    write_quorum: int


class Append(msgspec.Struct, frozen=True, array_like=True, tag="append"):
    """Entries to accept in `epoch`, which began at version `start`; all versions up to `commit` are committed."""

    epoch: int
    start: int
    commit: int
    entries: list[Entry]


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, tag="beat"):
    """The commit point, and the checksum chain at it, for a follower that gets no entries."""

    epoch: int
    start: int
    commit: int
    chain: int


class Confirm(msgspec.Struct, frozen=True, array_like=True, tag="confirm"):
    """Ask whether `epoch` still leads; one round answers every strong read that waited when it began."""

    epoch: int
    round: int


class Fetch(msgspec.Struct, frozen=True, array_like=True, tag="fetch"):
    """A candidate asks for committed entries above `after`."""

    epoch: int
    after: int


class Snapshot(msgspec.Struct, frozen=True, array_like=True, tag="snapshot"):
    """All rows that a node keeps up to its trusted prefix: they replace the receiver's, they are never merged.

    `chain` is the checksum chain at `trusted`. At or below `floor` versions may be missing that others supersede.
    """

    epoch: int
    start: int
    trusted: int
    floor: int
    chain: int
    configuration: Configuration
    configuration_version: int
    entries: list[Entry]


# --- messages, follower to leader (or candidate) ---


class Promise(msgspec.Struct, frozen=True, array_like=True, tag="promise"):
    """The answer to a seal: what this node holds, as of a durable promise of `epoch`.

    `chain`: the checksum chain at version `trusted`.
    """

    epoch: int
    node_id: str
    voter: bool
    trusted: int
    chain: int
    floor: int
    contiguous: int
    epochs: dict[int, int]
    configuration: Configuration | None
    entries: list[Entry]


class Ack(msgspec.Struct, frozen=True, array_like=True, tag="ack"):
    """These versions are durable here in `epoch`, and so is every version up to `contiguous`."""

    epoch: int
    versions: list[int]
    contiguous: int
    trusted: int


class Confirmed(msgspec.Struct, frozen=True, array_like=True, tag="confirmed"):
    """This node has promised nothing above `epoch`."""

    epoch: int
    round: int


class Fetched(msgspec.Struct, frozen=True, array_like=True, tag="fetched"):
    """Committed entries above `after`, in version order without a gap; the answer to a fetch."""

    epoch: int
    after: int
    entries: list[Entry]


class Rejected(msgspec.Struct, frozen=True, array_like=True, tag="rejected"):
    """The receiver has promised `promised`, which is above the sender's `epoch`; or it belongs to another cluster."""

    epoch: int
    promised: int
    foreign: bool = False


class Diverged(msgspec.Struct, frozen=True, array_like=True, tag="diverged"):
    """The checksum chains differ at version `trusted`: the sender has put itself in quarantine."""

    epoch: int
    trusted: int


Request = Seal | Append | Heartbeat | Confirm | Fetch | Snapshot
Message = (
    Seal | Append | Heartbeat | Confirm | Fetch | Snapshot | Promise | Ack | Confirmed | Fetched | Rejected | Diverged
)


# --- what clients ask, and what they are told ---


class Condition(msgspec.Struct, frozen=True):
    """A condition on the committed state of one key: its version, that it is absent, or that it is present."""

    version: int | None = None
    absent: bool = False
    present: bool = False


class Write(msgspec.Struct, frozen=True):
    """A client's write. `token` is the driver's name for whoever waits; `deadline` is in ms of the driver's clock.

    `acks` asks for that many follower acknowledgements instead of the write quorum (`None`).
    A batch has several changes and takes one version.
    """

    token: int
    changes: tuple[Change, ...]
    deadline: float
    batch: bool = False
    condition: Condition | None = None
    request_id: str = ""
    acks: int | None = None


class Reason(enum.Enum):
    """Why a request ended as it did."""

    OK = "ok"
    NOT_LEADER = "not_leader"
    RECOVERING = "recovering"
    NO_QUORUM = "no_quorum"
    OVERLOADED = "overloaded"
    DISK_LOW = "disk_low"
    CONDITION_FAILED = "condition_failed"
    NOT_FOUND = "not_found"
    REQUEST_ID_REUSED = "request_id_reused"
    EXPIRED = "expired"
    BUSY = "busy"
    TIMEOUT = "timeout"
    LEADERSHIP_LOST = "leadership_lost"
    TOO_FEW_NODES = "too_few_nodes"
    NOT_VOTER = "not_voter"
    NOT_FOLLOWER = "not_follower"
    BEYOND_WINDOW = "beyond_window"
    WRONG_EPOCH = "wrong_epoch"


class Outcome(enum.Enum):
    """`ACCEPTED`: enough acknowledgements for what the request asked, fewer than a commit needs."""

    COMMITTED = "committed"
    ACCEPTED = "accepted"
    NOT_WRITTEN = "not_written"
    UNKNOWN = "unknown"


class Result(msgspec.Struct, frozen=True):
    """The answer to a write, a promotion or a change of configuration.

    `acked_by` has (node, ms from assignment to acknowledgement), in order of arrival. `current` is the version that a
    failed condition met. `replayed` marks the answer to a retry. For a promotion `required` and `acks` count nodes.
    """

    outcome: Outcome
    reason: Reason
    version: int = 0
    epoch: int = 0
    acks: int = 0
    required: int = 0
    acked_by: tuple[tuple[str, float], ...] = ()
    current: int = 0
    replayed: bool = False


class PartRow(msgspec.Struct, frozen=True, gc=False):
    """The state that one part of a batch gives its key: as an entry of one key would, and which part it was."""

    version: int
    epoch: int
    value: bytes
    encoding: int = Encoding.RAW
    part: int = 0
    deleted: bool = False
    expires_ms: int = 0


Row = Entry | PartRow
"""The state of one key: the version (and the part of a batch) that wrote it, its accept epoch, and the value."""


class ReadResult(msgspec.Struct, frozen=True):
    """The answer to a read that had to wait. `row` is `None` for an absent key."""

    reason: Reason
    row: Row | None = None


# --- events ---


class Started(msgspec.Struct, frozen=True):
    """The node is up. `lead`: the settings call it the leader; `cluster_id`: the id to use if it founds a cluster."""

    lead: bool
    cluster_id: str


class Joined(msgspec.Struct, frozen=True):
    """This node learned its name and the names of all members, in the order that makes them owners of epochs."""

    name: str
    members: tuple[str, ...]


class Proposed(msgspec.Struct, frozen=True):
    """Writes that waited together: they get their versions in one step."""

    writes: list[Write]


class Received(msgspec.Struct, frozen=True):
    """A message from `sender`."""

    sender: str
    message: Message


class LinkUp(msgspec.Struct, frozen=True):
    """The link that this node opened to `peer` works; the peer said this of itself."""

    peer: str
    node_id: str
    cluster_id: str
    promised: int


class LinkDown(msgspec.Struct, frozen=True):
    """The link to `peer` is gone."""

    peer: str


class LinkFull(msgspec.Struct, frozen=True):
    """`peer` does not read what it is sent; what was queued for it has been dropped."""

    peer: str


class Tick(msgspec.Struct, frozen=True):
    """Time has passed; deadlines and timers are due. `compacting`: rows may be deleted now."""

    compacting: bool = True


class StrongRead(msgspec.Struct, frozen=True):
    """Read `key` as committed, once a round started after this event has confirmed the leadership."""

    token: int
    key: str
    deadline: float


class SessionRead(msgspec.Struct, frozen=True):
    """Read `key` once this node has what the token `epoch.version` stands for."""

    token: int
    key: str
    epoch: int
    version: int
    deadline: float


class PromoteRequested(msgspec.Struct, frozen=True):
    """Make this node the leader by the take-over procedure; `accept_loss` goes on with fewer promises than safe."""

    token: int
    accept_loss: bool
    deadline: float


class ConfigureRequested(msgspec.Struct, frozen=True):
    """Change the write quorum."""

    token: int
    write_quorum: int
    deadline: float


class Injected(msgspec.Struct, frozen=True):
    """One replicated entry that did not come over a link.

    Without an epoch it is provisional: any leader's entry of the same version replaces it, and no take-over takes it
    up.
    """

    token: int
    version: int
    epoch: int | None
    change: Change


class DiskLow(msgspec.Struct, frozen=True):
    """The disk is nearly full, or no longer."""

    low: bool


class Paced(msgspec.Struct, frozen=True):
    """Acknowledgements may take this long under the simulated network: wait so long before sending again."""

    retransmit_ms: float


Event = (
    Started
    | Joined
    | Proposed
    | Received
    | LinkUp
    | LinkDown
    | LinkFull
    | Tick
    | StrongRead
    | SessionRead
    | PromoteRequested
    | ConfigureRequested
    | Injected
    | DiskLow
    | Paced
)


# --- effects: saves come first in every list, and nothing after them happens before they are durable ---


class SaveEntries(msgspec.Struct, frozen=True):
    """Write these rows (each replaces a row of the same version) and remove those versions."""

    entries: list[Entry]
    removed: list[int] = []


class SaveEpoch(msgspec.Struct, frozen=True):
    """Record that `epoch` owns versions from `start` on; an existing record stays."""

    epoch: int
    start: int


class SaveState(msgspec.Struct, frozen=True):
    """Write the hard state."""

    hard: HardState


class Compact(msgspec.Struct, frozen=True):
    """Delete these (version, part) rows: newer rows of their keys, at or below the floor, supersede them.

    `tombstones` are deletions, in order: one may only go from the store for good together with or after all older rows
    of its key, which are in this `dead` or were in an earlier one. Until it goes, reads may show it.
    """

    dead: list[tuple[int, int]]
    tombstones: list[tuple[int, int]]


class Install(msgspec.Struct, frozen=True):
    """Replace every row up to `trusted` by `entries`."""

    trusted: int
    entries: list[Entry]


class Send(msgspec.Struct, frozen=True):
    """Send without a simulated delay."""

    to: str
    message: Message


class Replicate(msgspec.Struct, frozen=True):
    """Send new entries to these followers; each entry gets its own simulated delay per follower."""

    to: list[str]
    message: Append


class SendRange(msgspec.Struct, frozen=True):
    """Read versions `after + 1` to `upto` from the store and send them to `to` without delay.

    As an `Append` to a follower, as a `Fetched` where `fetched` is set. The driver may stop early at its byte limit.
    """

    to: str
    epoch: int
    start: int
    commit: int
    after: int
    upto: int
    fetched: bool = False


class SendSnapshot(msgspec.Struct, frozen=True):
    """Read every row up to `head.trusted` from the store and send them as `head` with those entries."""

    to: str
    head: Snapshot


class Reply(msgspec.Struct, frozen=True):
    """Answer whoever waits under `token`."""

    token: int
    result: Result | ReadResult


class OpenLinks(msgspec.Struct, frozen=True):
    """Open (and keep open) a link to every other member."""


class CloseLinks(msgspec.Struct, frozen=True):
    """Close the links that this node opened: it no longer leads."""


Save = SaveEntries | SaveEpoch | SaveState | Compact | Install
Effect = (
    SaveEntries
    | SaveEpoch
    | SaveState
    | Compact
    | Install
    | Send
    | Replicate
    | SendRange
    | SendSnapshot
    | Reply
    | OpenLinks
    | CloseLinks
)
