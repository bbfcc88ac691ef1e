"""Who is let in, and the sentence that others get."""

from __future__ import annotations

import msgspec
import pytest

from retinue.frames import FrameError
from retinue.handshake import (
    PROTOCOL,
    Challenge,
    Hello,
    Identity,
    Member,
    decode_handshake,
    make_hello,
    make_welcome,
    new_challenge,
    printable,
    refuse_challenge,
    refuse_hello,
    refuse_name,
    refuse_welcome,
    split_address,
)

SECRET = b"s" * 32
LEADER = Identity("leader", "node-a", "cluster-1", 1, "http://127.0.0.1:8000")
FOLLOWER = Identity("follower1", "node-b", "cluster-1", 1, "http://127.0.0.1:8001")
MEMBERS = (Member("leader", "127.0.0.1:9000", "http://127.0.0.1:8000"), Member("follower1", "[::1]:9001", "http://x"))


def hello(challenge: Challenge, identity: Identity = LEADER, secret: bytes = SECRET) -> Hello:
    return make_hello(challenge, identity, "follower1", MEMBERS, secret)


@pytest.mark.parametrize("secret", [SECRET, b""])
def test_two_nodes_with_one_secret_meet(secret: bytes) -> None:
    challenge = new_challenge()
    assert refuse_challenge(challenge) == ""
    called = hello(challenge, secret=secret)
    assert refuse_hello(called, challenge, FOLLOWER, secret) == ""
    assert refuse_name(called, FOLLOWER) == ""
    welcome = make_welcome(challenge, called, FOLLOWER, secret)
    assert refuse_welcome(welcome, called, challenge, secret) == ""


def test_a_blank_cluster_id_fits_any() -> None:
    challenge = new_challenge()
    blank = msgspec.structs.replace(FOLLOWER, cluster_id="")
    called = hello(challenge)
    assert refuse_hello(called, challenge, blank, SECRET) == ""
    assert refuse_welcome(make_welcome(challenge, called, blank, SECRET), called, challenge, SECRET) == ""


def test_no_proof_passes_for_another() -> None:
    challenge = new_challenge()
    called = hello(challenge)
    assert "peer secrets differ" in refuse_hello(hello(challenge, secret=b"x"), challenge, FOLLOWER, SECRET)
    assert "peer secrets differ" in refuse_hello(called, new_challenge(), FOLLOWER, SECRET)
    changes: list[dict[str, object]] = [
        {"name": "x"},
        {"members": ()},
        {"cluster_id": "x"},
        {"proof": b""},
        {"nonce": b""},
    ]
    for change in changes:
        changed = msgspec.structs.replace(called, **change)
        assert "peer secrets differ" in refuse_hello(changed, challenge, FOLLOWER, SECRET)
    welcome = make_welcome(challenge, called, FOLLOWER, SECRET)
    changes = [{"promised": 9}, {"node_id": "other"}, {"proof": called.proof}, {"proof": b""}]
    for change in changes:
        assert "does not know the peer secret" in refuse_welcome(
            msgspec.structs.replace(welcome, **change), called, challenge, SECRET
        )


def test_sentences_for_misconfigured_nodes() -> None:
    challenge = new_challenge()
    called = hello(challenge)
    other = msgspec.structs.replace(FOLLOWER, cluster_id="cluster-2")
    foreign = "The node called belongs to cluster cluster-2, the caller to cluster cluster-1"
    assert foreign in refuse_hello(called, challenge, other, SECRET)
    assert foreign in refuse_welcome(make_welcome(challenge, called, other, SECRET), called, challenge, SECRET)
    assert "leads back to leader itself" in refuse_hello(called, challenge, LEADER, SECRET)
    twin = hello(challenge, msgspec.structs.replace(LEADER, name="follower1"))
    assert "has the name follower1 itself" in refuse_hello(twin, challenge, FOLLOWER, SECRET)
    renamed = msgspec.structs.replace(FOLLOWER, name="follower2")
    assert "is follower2, the caller takes it for follower1" in refuse_name(called, renamed)
    welcome = make_welcome(challenge, called, renamed, SECRET)
    assert "is follower2, not follower1" in refuse_welcome(welcome, called, challenge, SECRET)
    newer = msgspec.structs.replace(called, protocol=PROTOCOL + 1)
    assert f"speaks version {PROTOCOL + 1}" in refuse_hello(newer, challenge, FOLLOWER, SECRET)
    assert "speaks version 9" in refuse_challenge(Challenge(9, challenge.nonce))
    assert "wrong size" in refuse_challenge(Challenge(PROTOCOL, b""))


@pytest.mark.parametrize("payload", [b"", b"\xc1", msgspec.msgpack.encode(["append", 1, 1, 0, []])])
def test_only_handshake_frames_are_read_from_strangers(payload: bytes) -> None:
    with pytest.raises(FrameError, match="does not belong to a handshake"):
        decode_handshake(payload)


def test_a_strangers_sentence_is_made_printable_and_short() -> None:
    assert printable("a\x1b[31m\nb\u202e") == "a?[31m?b?"
    assert len(printable("x" * 10_000)) == 400


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:9001", ("127.0.0.1", 9001)),
        ("follower3:9000", ("follower3", 9000)),
        ("[::1]:9001", ("::1", 9001)),
    ],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":9000", "host:0", "host:65536", "host:x", "host:²", "::1:90"]
)
def test_wrong_addresses(address: str) -> None:
    with pytest.raises(ValueError, match="peer address"):
        split_address(address)
