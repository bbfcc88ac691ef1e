"""TCP ports of this machine: which are free."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from contextlib import closing

from retinue.errors import ClusterError
from retinue.settings import PEER_PORT_OFFSET, RESP_PORT_OFFSET

FREE_FROM, FREE_UPTO = 10_000, 31_700
"""Where `free_ports` looks: below the range from which the system takes ports for outgoing connections."""


def taken_port(host: str, ports: Sequence[int]) -> int | None:
    """The first of these ports on which nobody could listen now; `None` if all are free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in ports:
        with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                probe.listen(1)
            except OSError:
                return port
    return None


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """So many HTTP ports that are free with those that follow from them. Raises `ClusterError` if there are none."""
    candidates = random.sample(range(FREE_FROM + RESP_PORT_OFFSET, FREE_UPTO - PEER_PORT_OFFSET), 50 * count)
    found: list[int] = []
    used: set[int] = set()
    for port in candidates:
        ports = {port - RESP_PORT_OFFSET, port, port + PEER_PORT_OFFSET}
        if len(found) < count and not ports & used and taken_port(host, sorted(ports)) is None:
            found.append(port)
            used |= ports
    if len(found) < count:
        raise ClusterError(f"There are no {count} free ports between {FREE_FROM} and {FREE_UPTO}: stop other programs.")
    return found
