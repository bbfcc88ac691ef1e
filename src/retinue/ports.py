"""TCP ports of this machine: which are free, and which of them this process alone may take."""

from __future__ import annotations

import random
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import closing

from retinue.errors import ClusterError
from retinue.settings import PEER_PORT_OFFSET, RESP_PORT_OFFSET

FREE_FROM, FREE_UPTO = 10_000, 31_700
"""Where `free_ports` looks: below the range from which the system takes ports for outgoing connections."""
_BAND = 1_000
"""So many HTTP ports lie side by side; those that follow from them are in the gaps between these bands."""
_PERIOD = 3_600
"""From one band to the next, so that no Redis or peer port of one is a port of another."""
BLOCK = 50
"""A process has so many HTTP ports at a time for itself."""


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


class OwnPorts:
    """The HTTP ports that no other process gets from `free_ports` while this one lives.

    Between the moment in which a port is found and the one in which a node listens there, and while a node is down,
    another process could find it free as well. So a process claims whole blocks, by holding the first port of each.
    """

    def __init__(self) -> None:
        self._ports: deque[int] = deque()

    def find(self, count: int, host: str) -> list[int]:
        """See `free_ports`."""
        found: list[int] = []
        tried = taken = 0
        claimed = False
        while len(found) < count:
            if tried == len(self._ports):
                if claimed and taken == BLOCK - 1:
                    raise ClusterError(f"No port can be had on {host}: give an address of this machine.")
                self._claim_block()
                # What was found before and is not used yet must not be found twice.
                self._ports.rotate(BLOCK - 1)
                claimed, taken = True, 0
            port = self._ports[0]
            self._ports.rotate(-1)
            tried += 1
            if taken_port(host, (port - RESP_PORT_OFFSET, port, port + PEER_PORT_OFFSET)) is None:
                found.append(port)
            else:
                taken += 1
        return found

    def _claim_block(self) -> None:
        bands = range(FREE_FROM + RESP_PORT_OFFSET, FREE_UPTO - PEER_PORT_OFFSET, _PERIOD)
        blocks = [first for band in bands for first in range(band, band + _BAND, BLOCK)]
        for first in random.sample(blocks, len(blocks)):
            claim = socket.socket()
            try:
                claim.bind(("127.0.0.1", first))
            except OSError:
                claim.close()
                continue
            # Bound until this process ends: nobody closes the bare descriptor.
            claim.detach()
            self._ports.extend(range(first + 1, first + BLOCK))
            return
        raise ClusterError(f"There are not enough free ports between {FREE_FROM} and {FREE_UPTO}: stop other programs.")


_own = OwnPorts()


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """So many HTTP ports that are free with those that follow from them.

    No other process that asks so gets them while this one lives, and this one gets all its others before it gets one
    of them again. Raises `ClusterError` if there are not enough.
    """
    return _own.find(count, host)
