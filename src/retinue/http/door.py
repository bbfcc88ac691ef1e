"""What every route is given beside the request: the node, its settings, and what the door itself counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinue.http.access import Guard
from retinue.http.body import BodyBudget
from retinue.metrics import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from retinue.http.schemas import Known
    from retinue.node import Node
    from retinue.settings import Settings

FOLLOWER_LIMIT = 1000


class Door:
    """The HTTP door of one node. `description` makes the OpenAPI document, as JSON, of what is known."""

    def __init__(
        self, node: Node, settings: Settings, registry: Registry, description: Callable[[Known], bytes]
    ) -> None:
        self.node = node
        self.settings = settings
        self.registry = registry
        self.guard = Guard(settings)
        self.budget = BodyBudget(settings.max_pending_bytes)
        self.description = description
        self.port = settings.port

    @property
    def follower_count(self) -> int:
        """How many followers a request may ask acknowledgements of; only the leader knows, and only it takes writes."""
        return len(self.node.members) - 1 if self.node.role == "leader" else FOLLOWER_LIMIT
