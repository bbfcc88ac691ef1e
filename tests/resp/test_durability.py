"""What the Redis door shows is durable, also where nobody else has to acknowledge it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import uvloop

from retinue.core.messages import Save, SaveEntries
from retinue.metrics import Registry
from retinue.node import Node
from retinue.ports import free_ports
from retinue.resp import RespDoor
from retinue.settings import Settings
from retinue.store import Store
from tests.resp.serving import encoded


class SlowStore(Store):
    """A store on a disk that takes its time, so that commits happen in a thread."""

    durable = b""

    def sync_cost_ms(self) -> float:
        return 50.0

    def commit(self, saves: Sequence[Save]) -> None:
        time.sleep(0.03)
        super().commit(saves)
        for save in saves:
            if isinstance(save, SaveEntries):
                self.durable = save.entries[-1].value or self.durable


def test_reads_wait_for_the_disk_without_a_quorum(tmp_path: Path) -> None:
    settings = Settings(port=free_ports(1)[0], data_dir=tmp_path, write_quorum=0, resp_port=0)

    async def work() -> None:
        store = SlowStore(tmp_path)
        node = Node(settings, store)
        door = RespDoor(node, settings, Registry())
        await node.driver.start(uuid.uuid4().hex, lambda error: None)
        await door.start()
        try:
            reading, writing = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(2)]
            await node.promote()
            shown = b""
            for number in range(1, 8):
                value = b"%d" % number
                writing[1].write(encoded("SET", "k", value))
                while shown != value:
                    reading[1].write(encoded("GET", "k"))
                    head = await reading[0].readline()
                    if head != b"$-1\r\n":
                        shown = (await reading[0].readline()).strip()
                        # The command has been answered, so what it shows must have been durable by then.
                        assert int(shown) <= int(store.durable)
                assert await writing[0].readline() == b"+OK\r\n"
            # Whoever finds the key taken learns of a write, which must be durable by then too.
            writing[1].write(encoded("SET", "taken", "100"))
            while int(store.durable) < 100:
                reading[1].write(encoded("SETNX", "taken", "0"))
                if await reading[0].readline() == b":0\r\n":
                    assert int(store.durable) == 100
            assert await writing[0].readline() == b"+OK\r\n"
            writing[1].write(encoded("SETNX", "k", "x") + encoded("INCR", "k") + encoded("GET", "k"))
            assert [await writing[0].readline() for _ in range(4)] == [b":0\r\n", b":8\r\n", b"$1\r\n", b"8\r\n"]
            for _, stream in (reading, writing):
                stream.close()
        finally:
            await door.stop()
            await node.driver.stop()
            store.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())
