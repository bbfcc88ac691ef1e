"""The two counting rules, and nothing else.

A write needs `W = k + 1` durable copies, the leader's included. A take-over needs `P` promises, the candidate's
included, so that every set of promises meets every set of copies: `P + W > N` (flexible quorums, Howard, Malkhi,
Spiegelman 2016).
"""

from __future__ import annotations


def copies_needed(write_quorum: int) -> int:
    """`W`: durable copies of a committed write, for a write quorum of `write_quorum` followers."""
    return write_quorum + 1


def promises_needed(nodes: int, write_quorum: int) -> int:
    """`P = N - W + 1`: nodes, the candidate included, that must promise before it may lead."""
    return nodes - copies_needed(write_quorum) + 1


def owner_of(epoch: int, nodes: int) -> int:
    """Index of the only node that may lead in `epoch` (1, 2, ...); distinct owners make epochs unique."""
    return (epoch - 1) % nodes


def next_epoch(seen: int, index: int, nodes: int) -> int:
    """The lowest epoch of node `index` in the first round of epochs after the one that `seen` belongs to.

    Counting in rounds makes a node that slept through a promotion ask for an epoch below the promoted one's, or be
    told.
    """
    return 1 + index if seen == 0 else ((seen - 1) // nodes + 1) * nodes + index + 1
