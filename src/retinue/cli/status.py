"""How the cluster looks to a person: the answer of `GET /status` in a few lines and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retinue.cli import output

_STATES = {"live": "live", "catching_up": "catching up", "snapshot": "gets a snapshot", "unreachable": "unreachable"}


def show(status: Mapping[str, Any]) -> None:
    """Print it. Members that an older or newer node does not send are left out."""
    for line in _lines(status):
        output.say(line)
    followers = status.get("followers")
    if isinstance(followers, list) and followers:
        columns = ("follower", "state", "votes", "versions behind", "ms behind", "ack ms", "address")
        output.show_table(columns, [_row(follower) for follower in followers if isinstance(follower, dict)])


def _lines(status: Mapping[str, Any]) -> list[str]:
    said = output.plain
    lag = status.get("lag")
    epoch = f"in epoch {said(status.get('epoch'))}"
    if status.get("role") == "leader":
        first = f"{said(status.get('node'))} leads {epoch}{'' if status.get('serving') else ', and does not serve yet'}"
    elif status.get("leader"):
        leader = f"{said(status.get('leader'))} at {said(status.get('leader_url'))}"
        first = f"{said(status.get('node'))} follows {leader} {epoch}"
    else:
        first = f"{said(status.get('node'))} knows of no leader {epoch}"
    followers = len(status.get("members") or ()) - 1
    lines = [
        first,
        (
            f"committed up to version {said(status.get('commit'))}; keys: {said(status.get('keys'))}; "
            f"pending writes: {said(status.get('pending_writes'))}"
        ),
        (
            f"write quorum {said(status.get('write_quorum'))} of {followers} followers; "
            f"a take-over needs {said(status.get('takeover_quorum'))} nodes"
        ),
    ]
    if status.get("role") != "leader" and isinstance(lag, dict):
        heard = f"{float(lag.get('ms') or 0):.0f} ms"
        lines.append(f"{said(lag.get('versions'))} versions behind the leader, last heard of {heard} ago")
    if status.get("quarantined"):
        lines.append("in quarantine: its history differs from the leader's")
    if status.get("disk_low"):
        lines.append("the disk has too little free space: writes are refused")
    return lines


def _number(value: object, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else output.plain(value)


def _row(follower: Mapping[str, Any]) -> Sequence[str]:
    state = str(follower.get("state"))
    return (
        output.plain(follower.get("name")),
        _STATES.get(state, state),
        output.plain(follower.get("voter")),
        output.plain(follower.get("lag_versions")),
        _number(follower.get("lag_ms"), 0),
        _number(follower.get("ack_ms"), 1),
        output.plain(follower.get("url")),
    )
