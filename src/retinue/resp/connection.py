"""One client connection: requests in, replies out, in order.

Commands take effect in the order in which they came. Three kinds are told apart. Plain writes are proposed at once, so
a pipeline of them is one group commit; commands that read and write go to the queue of their key; all else is done when
everything before it has been answered, and so sees it. A command that must wait stalls what comes after it.

Everything has a bound: a client that does not read its replies, or has too much under way, is not read from.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, cast

from retinue.core.messages import Change, Kind, Write
from retinue.resp.arguments import KEY_LIMIT_BYTES
from retinue.resp.changing import Steps
from retinue.resp.client import Client
from retinue.resp.outcomes import OVERLOADED
from retinue.resp.parser import RequestParser
from retinue.resp.replies import CommandError, error
from retinue.resp.slots import ChangingSlot, EndingSlot, Part, PlainSlot, Slot, SumSlot

if TYPE_CHECKING:
    from retinue.resp.changing import Step
    from retinue.resp.door import Entry, RespDoor

log = logging.getLogger(__name__)

# Replies beyond this leave before the turn of the event loop is over, and the client must take them before it is served
# on. Requests beyond this are not read until half of them have been answered.
OUTPUT_LIMIT_BYTES = 256 << 10
QUEUE_LIMIT = 4096

# What commands are under way; all of them are of one kind.
_PLAIN, _CHANGING, _ALONE = 1, 2, 3

# As a plain number, for it is compared and encoded with every entry.
_PUT = int(Kind.PUT)


class Connection(asyncio.Protocol, Client):
    """One connection. `slots` are the replies to come, `backlog` the commands that wait for them."""

    def __init__(self, door: RespDoor, number: int) -> None:
        Client.__init__(self, door.node, door.view, door.accounts, door, number)
        self.door = door
        self.commands = door.entries
        self.waiting = door.node.driver.waiting
        self.propose = door.node.driver.propose
        self.value_limit = door.settings.value_limit_bytes
        self.slots: deque[Slot | ChangingSlot] = deque()
        self.backlog: deque[list[bytes]] = deque()
        self.under_way = 0
        self.unshipped = 0
        self.unshipped_key = ""
        self.out: list[bytes] = []
        self.out_bytes = 0
        self.dirty = False
        self.closed = False
        self.paused_at_s: float | None = None
        self._deadline = 0.0
        self._reading = True
        self._ended_input = False
        self._refusal = b""
        self.overloaded = False
        limit = max(self.value_limit, KEY_LIMIT_BYTES)
        self.parser = RequestParser(limit, limit + door.settings.batch_limit_bytes)
        self.limits_changed()

    # --- what the transport tells ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it if there are as many as there may be."""
        transport = cast(asyncio.Transport, transport)
        self.transport = transport
        self.address = _address(transport.get_extra_info("peername"))
        self.local_address = _address(transport.get_extra_info("sockname"))
        transport.set_write_buffer_limits(OUTPUT_LIMIT_BYTES)
        if not self.door.admit(self):
            transport.write(error("ERR max number of clients reached"))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; what it has proposed goes on."""
        self.closed = True
        self.slots.clear()
        self.backlog.clear()
        self.out.clear()
        self.door.forget(self)

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if self.ending or self.closed:
            return
        commands = self.parser.feed(data)
        if commands:
            self.run(commands)
        if self.parser.error:
            self._refuse(self.parser.error)
        if len(self.slots) + len(self.backlog) > QUEUE_LIMIT:
            self._stop_reading()

    def eof_received(self) -> bool:
        """The client sends no more: answer what it has sent, then close."""
        self._ended_input = True
        self.mark()
        return True

    def pause_writing(self) -> None:
        """The client does not read: do nothing more for it."""
        self.paused_at_s = self.door.now_s()
        self._stop_reading()

    def resume_writing(self) -> None:
        """The client has read."""
        self.paused_at_s = None
        self.mark()

    @property
    def deadline(self) -> float:
        """The deadline of the commands that begin now, in ms of the driver's clock; the same for all of a pipeline."""
        if not self._deadline:
            self._deadline = self.door.deadline()
        return self._deadline

    def _stop_reading(self) -> None:
        if self._reading and not self.transport.is_closing():
            self._reading = False
            self.transport.pause_reading()

    def _refuse(self, text: str) -> None:
        """What comes cannot be understood: say so after the replies to what came before, and close."""
        self._refusal = error(f"ERR {text}")
        self.mark()

    # --- commands in ---

    def run(self, commands: list[list[bytes]]) -> None:
        """Begin these commands, or keep them until they may begin."""
        self._deadline = 0.0
        self.overloaded = len(self.waiting) >= self.door.settings.max_pending_writes
        backlog, begin = self.backlog, self.begin
        for arguments in commands:
            if backlog or not begin(arguments):
                backlog.append(arguments)

    def begin(self, arguments: list[bytes]) -> bool:
        """Do a command, or what can be done of it now; false if it must wait until more before it is answered."""
        entry = self.commands.get(arguments[0]) or self.door.find(arguments[0])
        if entry is None or self.rank < entry.rank or self.paused_at_s is not None or self.ending:
            return self._begin_otherwise(entry, arguments)
        if not entry.is_set or len(arguments) != 3:
            return self._begin_any(entry, arguments)
        # The way of nearly all writes: SET key value.
        slots = self.slots
        if slots and self.under_way != _PLAIN:
            return False
        raw_key, value = arguments[1], arguments[2]
        if len(value) > self.value_limit or not 0 < len(raw_key) <= KEY_LIMIT_BYTES or self.overloaded:
            return self._begin_any(entry, arguments)
        try:
            key = raw_key.decode()
        except UnicodeDecodeError:
            return self._begin_any(entry, arguments)
        if key in self.door.queues.active:
            return self._begin_any(entry, arguments)
        entry.counter.value += 1
        self.under_way = _PLAIN
        slot = PlainSlot(self)
        slots.append(slot)
        deadline = self.deadline
        token = self.waiting.enter(slot, deadline)
        self.propose(Write(token, (Change(_PUT, key, value),), deadline))
        return True

    def _begin_otherwise(self, entry: Entry | None, arguments: list[bytes]) -> bool:
        """A command that is not known or not allowed, or one that comes when nothing more is done."""
        if self.ending:
            return True
        if self.paused_at_s is not None:
            return False
        if entry is None and arguments[0].lower() in (b"post", b"host:"):
            # A browser that some page has sent here: nothing it says is meant for this node.
            log.warning("a client at %s speaks HTTP on the Redis port: closed", self.address)
            self.ending = True
            self.transport.abort()
            return True
        self._answer(self.door.refusal(self, entry, arguments))
        return True

    def _begin_any(self, entry: Entry, arguments: list[bytes]) -> bool:
        command = entry.command
        try:
            if not command.accepts(len(arguments)):
                raise CommandError(f"ERR wrong number of arguments for '{command.name}' command")
            if command.write is None or (command.read is not None and len(arguments) == 2):
                assert command.read is not None, "a command reads or writes"
                if self.slots or not self.door.is_settled(self):
                    return False
                self.last_command = command.name
                reply = command.read(self, arguments)
                if reply is not None:
                    self._write(reply)
            elif not self._begin_write(command.write(arguments, self.version, self.door.settings)):
                return False
        except CommandError as failed:
            self._answer(error(str(failed)))
        except Exception:
            log.exception("the command %s failed", command.name)
            self._answer(error("ERR internal error, see the log of the node"))
        entry.counter.value += 1
        return True

    def _begin_write(self, wanted: tuple[Change, ...] | Steps) -> bool:
        if isinstance(wanted, Steps):
            return self._begin_steps(wanted.keys, wanted.step)
        active = self.door.queues.active
        if len(wanted) == 1 and wanted[0].key in active:
            # It must not get between the evaluation of other commands and their write.
            change = wanted[0]
            return self._begin_steps([change.key], self.door.overwriting(change))
        if self.slots and self.under_way != _PLAIN:
            return False
        if self.overloaded:
            raise CommandError(OVERLOADED)
        self.under_way = _PLAIN
        ending = any(change.expires_ms for change in wanted)
        slot = EndingSlot(self, wanted) if ending else PlainSlot(self)
        self.slots.append(slot)
        token = self.waiting.enter(slot, self.deadline)
        self.propose(Write(token, wanted, self.deadline, batch=len(wanted) > 1))
        return True

    def _begin_steps(self, keys: list[str], step: Step) -> bool:
        if self.slots and self.under_way != _CHANGING:
            return False
        if self.unshipped and keys != [self.unshipped_key]:
            return False
        if self.overloaded:
            raise CommandError(OVERLOADED)
        self.under_way = _CHANGING
        self.unshipped += len(keys)
        self.unshipped_key = keys[0] if len(keys) == 1 else ""
        enter = self.door.queues.enter
        if len(keys) == 1:
            slot = ChangingSlot(self, step, self.deadline)
            self.slots.append(slot)
            enter(keys[0], slot)
            return True
        whole = SumSlot(self, len(keys))
        self.slots.append(whole)
        for key in keys:
            enter(key, Part(whole, step, self.deadline))
        return True

    def shipped(self) -> None:
        """One command on a key has its place in the order of writes."""
        self.unshipped -= 1
        if not self.unshipped and self.backlog:
            self.mark()

    def wait(self, needed: int, timeout_ms: int, *, with_local: int | None = None) -> None:
        """See `Client`."""
        slot = Slot(self)
        self.slots.append(slot)
        self.under_way = _ALONE
        self.door.waits.enter(slot, self.written, needed, timeout_ms, with_local)

    def limits_changed(self) -> None:
        """See `Client`."""
        self.parser.stranger = not self.rank

    # --- replies out ---

    def _answer(self, reply: bytes) -> None:
        """Reply when everything before has been replied to."""
        if self.slots:
            self.slots.append(Slot(self, reply))
            self.mark()
        else:
            self._write(reply)

    def _write(self, reply: bytes) -> None:
        self.out.append(reply)
        self.out_bytes += len(reply)
        if self.out_bytes > OUTPUT_LIMIT_BYTES:
            self._send()
        elif not self.dirty:
            self.mark()

    def mark(self) -> None:
        """There is something to do at the end of this turn of the event loop."""
        if not self.dirty and not self.closed:
            self.dirty = True
            self.door.mark(self)

    def flush(self) -> None:
        """Send the replies whose turn it is, and go on with what waited for them."""
        self.dirty = False
        slots, out = self.slots, self.out
        while slots and (reply := slots[0].reply) is not None:
            out.append(reply)
            slots.popleft()
        if out:
            self._send()
        if self.backlog:
            self._go_on()
        if not self._reading and self.paused_at_s is None and len(slots) + len(self.backlog) <= QUEUE_LIMIT // 2:
            self._reading = True
            if not self.transport.is_closing():
                self.transport.resume_reading()
        if not (slots or self.backlog or out):
            self._end_if_done()

    def _end_if_done(self) -> None:
        """Everything that came is answered."""
        if self._refusal:
            self.out.append(self._refusal)
            self._refusal = b""
            self.ending = True
            self._send()
        if self.ending or self._ended_input:
            self.transport.close()

    def _send(self) -> None:
        data = b"".join(self.out)
        self.out.clear()
        self.out_bytes = 0
        if self.closed or self.transport.is_closing():
            return
        try:
            self.transport.write(data)
        except (OSError, RuntimeError):
            # uvloop raises on a connection that the client has closed; it will tell so in `connection_lost`.
            self.transport.abort()

    def _go_on(self) -> None:
        self._deadline = 0.0
        self.overloaded = len(self.waiting) >= self.door.settings.max_pending_writes
        backlog = self.backlog
        while backlog and self.begin(backlog[0]):
            # A connection that ends here has emptied it.
            if backlog:
                backlog.popleft()


def _address(name: object) -> str:
    """An address as `CLIENT LIST` shows it."""
    if not isinstance(name, tuple):
        return ""
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
