"""Finding out what listens at an address: which dialect it speaks, and whether it is a retinue cluster.

A server that describes itself (`/openapi.json`) is believed. Else it is asked with GET and OPTIONS alone, which write
nothing: an address that it has is answered otherwise than one that nobody has.
"""

from __future__ import annotations

from collections.abc import Mapping

from retinue.errors import ClusterError, Unauthorized, Unreachable
from retinue.lab.connection import AnswerLost, NotSent, Pool, Reply
from retinue.lab.targets.answers import cells_from, sentence_of
from retinue.lab.targets.dialects import NAMES, Dialect, Form, Spoken, candidates, spoken_in

PATIENCE_S = 5.0

_NOBODY = "retinue-lab-asks-for-nothing"
"""A key and a path that no server has."""

_ROLE_PATHS = ("/health", "/ping", "/status")
_FOLLOWING = ("follower", "replica", "secondary")
_DESCRIPTION = "/openapi.json"


async def ask(pool: Pool, path: str, method: str = "GET") -> Reply:
    """The answer to one question. Raises `Unreachable` when nobody listens, `ClusterError` for what is not HTTP."""
    try:
        return await pool.ask(method, path, patience_s=PATIENCE_S)
    except NotSent as error:
        raise Unreachable(f"No server answers at {pool.url} ({error}): start it, or give another address.") from None
    except AnswerLost as error:
        raise ClusterError(f"The server at {pool.url} did not answer {method} {path} ({error}).") from None


def is_retinue(health: Reply) -> bool:
    """Whether what answered `/health` so is a node of a retinue cluster."""
    told = health.told
    refusal = str(told.get("type", "")).startswith("urn:retinue:")
    return refusal or {"node", "epoch", "write_quorum", "leader"} <= told.keys()


async def follows(pool: Pool) -> bool:
    """Whether a server says that it is a follower."""
    for path in _ROLE_PATHS:
        told = (await ask(pool, path)).told
        role = told.get("role", told.get("node_role"))
        if isinstance(role, str):
            return role.lower() in _FOLLOWING
    return False


async def recognise(pool: Pool, wanted: str | None = None) -> Spoken:
    """How the server is asked, in the dialect `wanted` where it is given.

    Raises `SettingsError` for a dialect that does not exist, `ClusterError` that names what was tried when no dialect
    fits, and what `ask` raises.
    """
    dialects = candidates(wanted)
    described = await ask(pool, _DESCRIPTION)
    if described.status in (401, 403):
        raise Unauthorized(f"The server at {pool.url} needs a token: put it into RETINUE_TOKEN.")
    if isinstance(described.told.get("paths"), dict):
        spoken = spoken_in(described.told, dialects)
        if spoken is not None:
            return spoken
        if wanted is None:
            writes = ", ".join(f"{dialect.name} ({dialect.write})" for dialect in dialects)
            raise ClusterError(f"The server at {pool.url} describes in {_DESCRIPTION} none of the dialects {writes}.")
    return await _Probe(pool).choose(dialects, wanted is not None)


class _Probe:
    """Questions to one server that does not describe itself."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._unlike: dict[str, object] = {}
        self._replies: dict[tuple[str, str], Reply] = {}

    async def choose(self, dialects: tuple[Dialect, ...], given: bool) -> Spoken:
        weights = [await self._weight(dialect) for dialect in dialects]
        best = max(weights)
        if best == 0 and not given:
            raise ClusterError(
                f"The server at {self._pool.url} speaks none of the dialects that can be told by asking (tried "
                f"{', '.join(self._tried())}): name one with --dialect, {', '.join(NAMES)}."
            )
        return await self._spoken(dialects[weights.index(best)])

    async def _weight(self, dialect: Dialect) -> int:
        """How much speaks for a dialect: its way to write above all."""
        weight = 4 * await self._has(dialect.write) + any([await self._has(form) for form in dialect.reads])
        return weight + 2 * await self._shows_all(Form("GET", dialect.own_dump))

    async def _spoken(self, dialect: Dialect) -> Spoken:
        reads = [form for form in dialect.reads if await self._has(form)]
        deletes = [form for form in dialect.delete_forms if await self._has(form)]
        dumps = [form for form in dialect.dumps if await self._shows_all(form)]
        delete = deletes[0] if deletes else dialect.delete_forms[0] if dialect.deletes else None
        return Spoken(
            dialect.name, dialect.write, (reads or dialect.reads)[0], delete, dumps[0] if dumps else dialect.dumps[0]
        )

    async def _shows_all(self, form: Form) -> bool:
        """Whether this address shows keys and values."""
        if not await self._has(form):
            return False
        try:
            cells_from(await self._reply("GET", form.path))
        except ValueError:
            return False
        return True

    async def _has(self, form: Form) -> bool:
        """Whether the server has this address, as far as it can be told."""
        path = form.address(_NOBODY)
        by_get, by_options = await self._reply("GET", path), await self._reply("OPTIONS", path)
        if _look(by_options, path) != await self._look_of_nothing("OPTIONS"):
            allowed = by_options.headers.get("allow", "")
            return not allowed or form.method in allowed.upper()
        return _look(by_get, path) != await self._look_of_nothing("GET")

    async def _look_of_nothing(self, method: str) -> object:
        if method not in self._unlike:
            path = f"/{_NOBODY}"
            self._unlike[method] = _look(await self._reply(method, path), path)
        return self._unlike[method]

    async def _reply(self, method: str, path: str) -> Reply:
        known = self._replies.get((method, path))
        if known is None:
            try:
                known = await ask(self._pool, path, method)
            except ClusterError:
                if method == "GET":
                    raise
                # Simple servers hang up on a method that they do not know.
                known = Reply(501, {}, b"", 0.0)
            self._replies[method, path] = known
        return known

    def _tried(self) -> list[str]:
        """The addresses that were asked for, without the key of nobody."""
        paths = [
            path.partition("?")[0].removesuffix(f"/{_NOBODY}") for method, path in self._replies if method == "GET"
        ]
        return [_DESCRIPTION, *(path for path in dict.fromkeys(paths) if path)]


def _look(reply: Reply, path: str) -> tuple[int, str, str]:
    """What an answer looks like, whatever address it was given for."""
    body = reply.body.decode("utf-8", "replace").replace(path, "").replace(_NOBODY, "")
    return reply.status, reply.headers.get("content-type", ""), body


def checked(reply: Reply, url: str) -> Mapping[str, object]:
    """The JSON object of an answer of a retinue node. Raises `ClusterError` or `Unauthorized` for any other."""
    if reply.status in (401, 403):
        raise Unauthorized(f"The node at {url} refuses to be asked: {sentence_of(reply)}")
    if reply.status != 200 or not reply.told:
        raise ClusterError(f"The node at {url} cannot be asked: {sentence_of(reply)}")
    return reply.told
