"""Who the members are, and under which addresses they are reached.

The leader's settings say it; the others hear it when the leader links to them, and keep it in their data directory, so
that any of them can reach all others when it is promoted.
"""

from __future__ import annotations

import re

import msgspec

from retinue.core.messages import HardState
from retinue.core.replica import Replica
from retinue.errors import SettingsError
from retinue.handshake import Identity, Member
from retinue.settings import Settings, peer_address


def members_of(settings: Settings) -> tuple[Member, ...]:
    """The members as the leader's settings name them: itself first."""
    members = [Member("leader", join_address(settings.peer_host, settings.peer_port), settings.advertise_url)]
    for name, url in zip(settings.members[1:], settings.followers, strict=True):
        members.append(Member(name, join_address(*peer_address(url)), url))
    return tuple(members)


def with_own_url(settings: Settings, name: str, members: tuple[Member, ...]) -> tuple[Member, ...]:
    """The members with the address that this node's own settings, if they give one, have for its clients.

    The leader's settings name followers as the leader reaches them, which is not always where clients do.
    """
    if "advertise_url" not in settings.explicit:
        return members
    url = settings.advertise_url
    return tuple(msgspec.structs.replace(m, http_url=url) if m.name == name else m for m in members)


def identity_of(settings: Settings, name: str, replica: Replica) -> Identity:
    """What a node says of itself when a link is made."""
    return Identity(name, replica.node_id, replica.cluster_id, replica.promised, settings.advertise_url)


def refuse_members(settings: Settings, hard: HardState, caller: str, name: str, members: tuple[Member, ...]) -> str:
    """Why this node does not take the name and the members that `caller` tells it, in one sentence; empty if it does.

    `hard` says which member of which cluster its data belongs to. A name is for good: epochs are owned by members.
    """
    names = [member.name for member in members]
    if caller not in names or name not in names:
        return f"{caller} does not name itself and {name} among the members: check the setting followers there."
    if hard.nodes and hard.nodes != len(names):
        return f"This node's cluster has {hard.nodes} nodes, and {caller} names {len(names)}: the number is fixed."
    if hard.cluster_id and hard.name not in ("", name):
        return f"{caller} calls this node {name}, its data says {hard.name}: name the followers in their order."
    fixed = fixed_name(settings)
    if fixed not in ("", "leader", name):
        return f"{caller} calls this node {name}, its own follower_id says {fixed}: name the followers in their order."
    return ""


def join_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def fixed_name(settings: Settings) -> str:
    """The member name that the settings leave no doubt about: `leader`, or a follower's number; else empty."""
    name = settings.name
    return name if name == "leader" or re.fullmatch(r"follower[1-9][0-9]*", name) else ""


def known_members(settings: Settings, remembered: str | None, nodes: int) -> tuple[Member, ...]:
    """The members that a node starts with: those of its settings on the leader, those it remembers on a follower.

    `nodes` is the size of the cluster that the data belongs to, 0 for none. Raises `SettingsError` if another number of
    followers is set: the membership of a cluster is fixed.
    """
    if settings.role == "leader":
        members = members_of(settings)
        if nodes and nodes != len(members):
            raise SettingsError(
                f"followers names {len(members) - 1} followers, but the data in {settings.data_dir} belongs to a "
                f"cluster with {nodes - 1}: name as many as before, or use a new data directory."
            )
        return members
    return msgspec.json.decode(remembered, type=tuple[Member, ...]) if remembered else ()
