"""What commands know of the client who sent them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from retinue.metrics import Counter
    from retinue.node import Node
    from retinue.resp.accounts import Accounts
    from retinue.resp.view import View

DEFAULT_VERSION = 2


class Statistics(Protocol):
    """What the door has counted so far."""

    connections: dict[int, Client]
    accepted: Counter
    refused: Counter
    port: int

    @property
    def commands_processed(self) -> int:
        """Commands that were answered, or are being answered."""

    @property
    def commands_per_s(self) -> float:
        """Commands in the last whole second."""

    @property
    def blocked(self) -> int:
        """Clients that wait in WAIT or WAITAOF."""


class Client(ABC):
    """One connection as commands see it.

    `version` is that of the protocol, 2 or 3. `rank` is what the client may do: 0 nothing, 1 read, 2 write, 3 all.
    `written` is the highest version among its writes that are answered.
    """

    def __init__(self, node: Node, view: View, accounts: Accounts, statistics: Statistics, number: int) -> None:
        self.node = node
        self.view = view
        self.accounts = accounts
        self.statistics = statistics
        self.number = number
        self.address = ""
        self.local_address = ""
        self.begun_s = time.monotonic()
        self.last_command = "NULL"
        self.ending = False
        self.written = 0
        self.reset()
        self.library = ""
        self.library_version = ""

    def reset(self) -> None:
        """As a connection begins."""
        self.version = DEFAULT_VERSION
        self.rank = self.accounts.default_rank
        self.user = "default"
        self.name = ""

    @abstractmethod
    def limits_changed(self) -> None:
        """The client has become somebody, or nobody."""

    @abstractmethod
    def wait(self, needed: int, timeout_ms: int, *, with_local: int | None = None) -> None:
        """Reply when `needed` followers have everything this client wrote, or after `timeout_ms` (0: never).

        The reply is how many have it; for WAITAOF, where `with_local` says how many local copies were asked for, a
        pair of numbers.
        """
