"""How two nodes get to know each other on a new connection, before anything else passes.

    acceptor  Challenge(protocol, nonce)
    dialer    Hello(protocol, who I am, who I take you for, all members, my nonce, proof)
    acceptor  Welcome(who I am, what I have promised, proof)   or   Refusal(sentence)

A proof is an HMAC-SHA256, keyed with the secret that all nodes share, over both nonces and over everything the frame
says. The two directions have different labels, so that a proof cannot be sent back to its maker. A refusal is not
proven: it is shown to people and changes nothing but how soon the dialer tries again.

What we leave out: encryption, and integrity after the handshake. Give the links TLS where the network is not yours.
"""

from __future__ import annotations

import hmac
import secrets

import msgspec

from retinue.frames import FrameError

PROTOCOL = 4
NONCE_BYTES = 32

# A Hello has the list of all members: room for several hundred. Nothing larger is read from a stranger.
HANDSHAKE_LIMIT_BYTES = 64 * 2**10

# Connecting and introducing oneself takes a few round trips; who needs longer is not there.
HANDSHAKE_TIMEOUT_S = 5.0

# A refusal is a sentence; more of it is not worth a log line.
SENTENCE_LIMIT = 400


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One node as the others reach it: `peer_address` is "host:port" of its peer links ("[host]:port" for IPv6)."""

    name: str
    peer_address: str
    http_url: str


class Identity(msgspec.Struct, frozen=True):
    """What a node says of itself. `cluster_id` is empty while it belongs to none; `promised` is an epoch."""

    name: str
    node_id: str
    cluster_id: str
    promised: int
    http_url: str


class Challenge(msgspec.Struct, frozen=True, array_like=True, tag="challenge"):
    """The acceptor's first frame."""

    protocol: int
    nonce: bytes


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """The dialer's first frame."""

    protocol: int
    cluster_id: str
    node_id: str
    name: str
    your_name: str
    members: tuple[Member, ...]
    nonce: bytes
    proof: bytes = b""


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="welcome"):
    """The acceptor takes the link."""

    cluster_id: str
    node_id: str
    name: str
    promised: int
    http_url: str
    proof: bytes = b""


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag="refusal"):
    """The acceptor does not take the link, for the reason in one sentence."""

    sentence: str


HandshakeFrame = Challenge | Hello | Welcome | Refusal

_decoder: msgspec.msgpack.Decoder[HandshakeFrame] = msgspec.msgpack.Decoder(HandshakeFrame)
_encoder = msgspec.msgpack.Encoder()


def decode_handshake(payload: bytes | memoryview) -> HandshakeFrame:
    """What is in a frame before the link is open. Raises `FrameError`."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"a frame of {len(payload)} bytes does not belong to a handshake: {error}") from None


def printable(sentence: str) -> str:
    """A stranger's sentence, made fit for a log line and a terminal."""
    return "".join(c if c.isprintable() else "?" for c in sentence[:SENTENCE_LIMIT])


def new_challenge() -> Challenge:
    """A challenge that was never used before."""
    return Challenge(PROTOCOL, secrets.token_bytes(NONCE_BYTES))


def make_hello(
    challenge: Challenge, identity: Identity, your_name: str, members: tuple[Member, ...], secret: bytes
) -> Hello:
    """The answer to `challenge` by the node `identity`, which takes the acceptor for `your_name`."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    hello = Hello(PROTOCOL, identity.cluster_id, identity.node_id, identity.name, your_name, members, nonce)
    return msgspec.structs.replace(hello, proof=_proof(secret, b"dialer", challenge.nonce, nonce, hello))


def make_welcome(challenge: Challenge, hello: Hello, identity: Identity, secret: bytes) -> Welcome:
    """The acceptor's last word: it is `identity`."""
    welcome = Welcome(identity.cluster_id, identity.node_id, identity.name, identity.promised, identity.http_url)
    return msgspec.structs.replace(welcome, proof=_proof(secret, b"acceptor", challenge.nonce, hello.nonce, welcome))


def refuse_challenge(challenge: Challenge) -> str:
    """Why the dialer goes no further, in one sentence; empty if it does."""
    if challenge.protocol != PROTOCOL:
        return (
            f"The node there speaks version {challenge.protocol} of the peer protocol, this one version {PROTOCOL}: "
            "run the same release on all nodes."
        )
    if len(challenge.nonce) != NONCE_BYTES:
        return "The node there sent a challenge of the wrong size."
    return ""


def refuse_hello(hello: Hello, challenge: Challenge, identity: Identity, secret: bytes) -> str:
    """Why the acceptor `identity` does not take the link, in one sentence; empty if it does."""
    if hello.protocol != PROTOCOL:
        return (
            f"The caller speaks version {hello.protocol} of the peer protocol, this node version {PROTOCOL}: "
            "run the same release on all nodes."
        )
    expected = _proof(secret, b"dialer", challenge.nonce, hello.nonce, msgspec.structs.replace(hello, proof=b""))
    if len(hello.nonce) != NONCE_BYTES or not hmac.compare_digest(expected, hello.proof):
        return "The peer secrets differ: give all nodes of the cluster the same peer secret."
    if hello.node_id == identity.node_id:
        return (
            f"The address of {printable(hello.your_name)} leads back to {printable(hello.name)} itself: "
            "correct the list of followers."
        )
    if hello.name == hello.your_name:
        return f"The caller has the name {printable(hello.name)} itself: correct the list of followers."
    return _foreign(hello.cluster_id, identity.cluster_id)


def refuse_name(hello: Hello, identity: Identity) -> str:
    """Why a name does not fit the node `identity` that has heard it, in one sentence; empty if it does."""
    if hello.your_name != identity.name:
        return (
            f"The node called is {printable(identity.name)}, the caller takes it for {printable(hello.your_name)}: "
            "correct the list of followers or their order."
        )
    return ""


def refuse_welcome(welcome: Welcome, hello: Hello, challenge: Challenge, secret: bytes) -> str:
    """Why the dialer does not use the link after all, in one sentence; empty if it does."""
    blank = msgspec.structs.replace(welcome, proof=b"")
    if not hmac.compare_digest(_proof(secret, b"acceptor", challenge.nonce, hello.nonce, blank), welcome.proof):
        return "The node there does not know the peer secret: give all nodes of the cluster the same peer secret."
    if welcome.name != hello.your_name:
        return (
            f"The node there is {printable(welcome.name)}, not {printable(hello.your_name)}: "
            "correct the list of followers or their order."
        )
    return _foreign(hello.cluster_id, welcome.cluster_id)


def _foreign(dialer_cluster: str, acceptor_cluster: str) -> str:
    if dialer_cluster and acceptor_cluster and dialer_cluster != acceptor_cluster:
        return (
            f"The node called belongs to cluster {printable(acceptor_cluster)}, the caller to cluster "
            f"{printable(dialer_cluster)}: correct the address, or empty the data directory of the one that is to join."
        )
    return ""


def _proof(secret: bytes, side: bytes, challenge: bytes, nonce: bytes, frame: Hello | Welcome) -> bytes:
    content = b"".join((b"retinue peer link, ", side, b"\0", challenge, nonce, _encoder.encode(frame)))
    return hmac.digest(secret, content, "sha256")


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[IPv6]:port". Raises `ValueError` with one sentence."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"The peer address {address!r} is ambiguous: write an IPv6 address as [host]:port.")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"The peer address {address!r} is not host:port with a port from 1 to 65535.")
    return host, int(port)
