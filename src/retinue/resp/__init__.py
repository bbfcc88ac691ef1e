"""The Redis-protocol door of a node: Redis clients talk to it as they talk to a Redis server.

`parser` turns bytes into commands, `connection` keeps their order and sends the replies, `table` says what each command
is. What they do: `reading`, `writing`, `changing` (which reads and writes at once, through `queues`), `session` and
`describing`. `door` listens, and flushes what has been answered.
"""

from retinue.resp.door import RespDoor

__all__ = ["RespDoor"]
