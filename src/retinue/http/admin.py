"""The routes about the node itself: health, status, settings, probes for load balancers, metrics, promotion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinue.errors import Forbidden, InvalidValue, NotServing, Unauthorized, UnsupportedMediaType
from retinue.http.access import Role
from retinue.http.answer import Answer, json_answer
from retinue.http.body import read_json_object, without_fraction
from retinue.http.kv import is_json
from retinue.http.request import Request, milliseconds, timeout_ms
from retinue.http.schemas import Known
from retinue.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from retinue.http.door import Door

ADMIN_BODY_LIMIT_BYTES = 65_536

_WHOLE_NUMBERS = {"write_quorum", "seed"}
_FORM = b"application/x-www-form-urlencoded"


async def index(door: Door, request: Request) -> Answer:
    """`GET /`: where to find what."""
    return json_answer(
        {
            "name": "retinue",
            "node": door.node.name,
            "role": door.node.role,
            "links": {
                "keys": "/kv",
                "health": "/health",
                "status": "/status",
                "config": "/config",
                "metrics": "/metrics",
                "description": "/openapi.json",
            },
        }
    )


async def health(door: Door, request: Request) -> Answer:
    """`GET /health`: whether this node serves, and why not."""
    return json_answer(door.node.health())


async def live(door: Door, request: Request) -> Answer:
    """`GET /livez`: the process runs and answers."""
    return json_answer({"status": "alive", "node": door.node.name})


async def ready(door: Door, request: Request) -> Answer:
    """`GET /readyz`: this node can serve reads."""
    door.node.health()
    return json_answer({"status": "ready", "node": door.node.name, "role": door.node.role})


async def leader(door: Door, request: Request) -> Answer:
    """`GET /leader`: 200 on the node that takes writes, 503 elsewhere."""
    node = door.node
    if node.role != "leader" or not node.replica.serving:
        raise NotServing(
            "This node does not take writes at present: the member leader says who does, where that is known.",
            leader=node.leader_url(),
            role=node.role,
        )
    return json_answer({"role": "leader", "node": node.name, "leader": node.leader_url()})


async def replica(door: Door, request: Request) -> Answer:
    """`GET /replica`: 200 on a follower that lags at most `max_lag_ms`, 503 elsewhere."""
    limit_ms = milliseconds("max_lag_ms", request.query("max_lag_ms").get("max_lag_ms"))
    node = door.node
    node.health()
    lag = node.lag()
    if node.role != "follower":
        raise NotServing("This node is no follower: ask another one.", role=node.role)
    if limit_ms is not None and lag["ms"] > limit_ms:
        raise NotServing(
            f"This follower is more than {limit_ms:g} ms behind the leader: ask another one.", role=node.role, lag=lag
        )
    return json_answer({"role": "follower", "node": node.name, "lag": lag})


async def ping(door: Door, request: Request) -> Answer:
    """`GET /ping`: the role of this node, as one of the labs asked for it."""
    return json_answer({"role": door.node.role, "status": "ok"})


async def status(door: Door, request: Request) -> Answer:
    """`GET /status`: the cluster as this node sees it."""
    return json_answer(door.node.status())


async def config(door: Door, request: Request) -> Answer:
    """`GET /config`: the settings in force."""
    return json_answer(door.node.config() | {"port": door.port})


async def change_config(door: Door, request: Request) -> Answer:
    """`PATCH /config`: change write quorum and simulated network while running."""
    document = await read_admin_json(request)
    for name in _WHOLE_NUMBERS & document.keys():
        document[name] = without_fraction(document[name])
    if document.keys() - {"write_quorum"}:
        door.guard.check_fault_injection()
    return json_answer(await door.node.configure(document) | {"port": door.port})


async def promote(door: Door, request: Request) -> Answer:
    """`POST /promote`: make this node the leader."""
    deadline_ms = timeout_ms(request.query("timeout_ms").get("timeout_ms"))
    document = await read_admin_json(request)
    accept_loss = document.get("accept_loss", False)
    if document.keys() - {"accept_loss"} or not isinstance(accept_loss, bool):
        raise InvalidValue('The body may only have the member accept_loss, true or false: send {"accept_loss": false}.')
    return json_answer(await door.node.promote(accept_loss=accept_loss, timeout_ms=deadline_ms))


async def metrics(door: Door, request: Request) -> Answer:
    """`GET /metrics`: counters, gauges and histograms in the Prometheus text form."""
    return Answer(200, door.registry.render(), CONTENT_TYPE.encode("ascii"))


async def description(door: Door, request: Request) -> Answer:
    """`GET /openapi.json`: the table of routes as OpenAPI 3.1, with what this node and its cluster allow."""
    return Answer(200, door.description(_known(door, request)))


def _known(door: Door, request: Request) -> Known:
    """What the description may say: it asks for no token, and who the members are is for those who may read."""
    node = door.node
    peers: tuple[str, ...] | None = None
    try:
        door.guard.check_role(Role.READ, request)
        peers = tuple(name for name in node.replica.members if name != node.name)
    except (Unauthorized, Forbidden):
        pass
    return Known(peers, door.settings.batch_limit)


async def read_admin_json(request: Request) -> dict[str, object]:
    """A small JSON object. The type that `curl -d` sends, and none, count as JSON; others are refused."""
    content_type = request.header(b"content-type")
    if content_type is not None and not is_json(request) and content_type.partition(b";")[0].strip().lower() != _FORM:
        raise UnsupportedMediaType("The body must be JSON: send Content-Type: application/json.")
    return await read_json_object(request, ADMIN_BODY_LIMIT_BYTES)
