"""Places in the order of a connection's replies, each filled when its answer is known.

A slot is what the waiting room calls when a write is answered, so a write costs no future and no closure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinue.core.messages import Outcome, Result
from retinue.expiry import now_ms
from retinue.resp.outcomes import refusal
from retinue.resp.queues import Operation
from retinue.resp.replies import OK, integer

if TYPE_CHECKING:
    from retinue.resp.changing import Step
    from retinue.resp.connection import Connection
    from retinue.resp.writing import Changes
    from retinue.waiting import Answer

_COMMITTED = Outcome.COMMITTED


class Slot:
    """One reply to come, or one that is there and waits for its turn."""

    __slots__ = ("connection", "reply")

    def __init__(self, connection: Connection, reply: bytes | None = None) -> None:
        self.connection = connection
        self.reply = reply

    def fill(self, reply: bytes) -> None:
        """The reply is known."""
        self.reply = reply
        self.connection.mark()


class PlainSlot(Slot):
    """The reply to a write that nothing is read for: OK when it has committed."""

    __slots__ = ()

    def __call__(self, result: Answer) -> None:
        """The write has been answered."""
        connection = self.connection
        assert isinstance(result, Result)
        if result.outcome is _COMMITTED:
            self.reply = OK
            if result.version > connection.written:
                connection.written = result.version
        else:
            self.reply = refusal(connection.node, result)
        connection.mark()


class EndingSlot(PlainSlot):
    """The same for values that end."""

    __slots__ = ("changes",)

    def __init__(self, connection: Connection, changes: Changes) -> None:
        super().__init__(connection)
        self.changes = changes

    def __call__(self, result: Answer) -> None:
        """The write has been answered: see to the end of what it may have written."""
        super().__call__(result)
        assert isinstance(result, Result)
        if result.outcome is not Outcome.NOT_WRITTEN:
            node = self.connection.node
            # What is not committed may not even have been seen by the core yet.
            patience_ms = 0 if result.outcome is _COMMITTED else int(node.settings.write_timeout_ms)
            for change in self.changes:
                node.expiry.watch(change.key, max(change.expires_ms, now_ms() + patience_ms))


class ChangingSlot(Operation):
    """The reply to a command that reads and writes one key; a slot as well."""

    __slots__ = ("connection", "reply")

    def __init__(self, connection: Connection, step: Step, deadline: float) -> None:
        super().__init__(step, deadline)
        self.connection = connection
        self.reply: bytes | None = None

    def shipped(self) -> None:
        """See `Operation`."""
        self.connection.shipped()

    def answer(self, reply: bytes, version: int) -> None:
        """See `Operation`."""
        self.reply = reply
        self.connection.written = max(self.connection.written, version)
        self.connection.mark()


class SumSlot(Slot):
    """The reply to a command on several keys: the sum of what its parts say, or the first error."""

    __slots__ = ("_error", "_left", "_total")

    def __init__(self, connection: Connection, parts: int) -> None:
        super().__init__(connection)
        self._left = parts
        self._total = 0
        self._error = b""

    def add(self, reply: bytes, version: int) -> None:
        """One part is over."""
        self._left -= 1
        if reply[:1] == b":":
            self._total += int(reply[1:])
        elif not self._error:
            self._error = reply
        self.connection.written = max(self.connection.written, version)
        if not self._left:
            self.fill(self._error or integer(self._total))


class Part(Operation):
    """One key of a command on several."""

    __slots__ = ("whole",)

    def __init__(self, whole: SumSlot, step: Step, deadline: float) -> None:
        super().__init__(step, deadline)
        self.whole = whole

    def shipped(self) -> None:
        """See `Operation`."""
        self.whole.connection.shipped()

    def answer(self, reply: bytes, version: int) -> None:
        """See `Operation`."""
        self.whole.add(reply, version)
