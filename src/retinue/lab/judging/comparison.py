"""Comparing what a follower has with what the leader has, key by key."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

from retinue.lab.targets.contract import Cell


class State(enum.Enum):
    """How a follower's cell differs from the leader's.

    `MISSING`: the leader has the key, the follower has not. `OLDER`, `NEWER`: by version. `DIFFERENT`: another value
    under the same version; where the server tells no versions, any other value. `EXTRA`: the follower has a key that
    the leader has not.
    """

    MISSING = "missing"
    OLDER = "older"
    NEWER = "newer"
    DIFFERENT = "different"
    EXTRA = "extra"

    @property
    def may_be_lag(self) -> bool:
        """Whether writes that are still on the way can mend it.

        What is missing, older or extra (its delete) can be on the way. A newer version or another value under the same
        version cannot, when the leader was dumped last or nobody wrote. Of servers without versions a different value
        can be either: see `Difference.may_be_lag`.
        """
        return self in (State.MISSING, State.OLDER, State.EXTRA)


class Difference(NamedTuple):
    """One key on which a follower (`node`) does not agree with the leader; `None` is an absent key."""

    key: str
    state: State
    leader: Cell | None
    node: Cell | None

    @property
    def may_be_lag(self) -> bool:
        """Whether time alone may mend it; without versions an older value cannot be told from a different one."""
        return self.state.may_be_lag or (self.state is State.DIFFERENT and not has_versions(self.leader, self.node))


def has_versions(leader: Cell | None, node: Cell | None) -> bool:
    """Whether both cells have a version, so that they can be put in order."""
    return leader is not None and node is not None and leader.version > 0 and node.version > 0


def difference(leader: Cell | None, node: Cell | None) -> State | None:
    """How a follower's cell differs from the leader's under one key; `None` when they agree."""
    if leader is None or node is None:
        if leader is node:
            return None
        return State.EXTRA if leader is None else State.MISSING
    if has_versions(leader, node) and leader.version != node.version:
        return State.OLDER if node.version < leader.version else State.NEWER
    return None if leader.value == node.value else State.DIFFERENT


def compare(leader_dump: Mapping[str, Cell], node_dump: Mapping[str, Cell]) -> list[Difference]:
    """All keys on which a follower does not agree with the leader, in the order of keys.

    The dumps are taken at nearly one time. While writes run, a difference says nothing more than that; when nothing was
    written for longer than the largest delay, any difference is divergence.
    """
    found = []
    for key in sorted({*leader_dump, *node_dump}):
        leader, node = leader_dump.get(key), node_dump.get(key)
        state = difference(leader, node)
        if state is not None:
            found.append(Difference(key, state, leader, node))
    return found
