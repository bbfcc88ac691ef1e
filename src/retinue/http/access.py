"""Who may do what: tokens and roles, the names a request may call this node, and requests that a foreign page started.

The rule is the table of routes itself: a `Route` cannot be made without the role that it needs, and an address without
a route is not served. This module holds the checks, each of them denying what it does not know.
"""

from __future__ import annotations

import enum
import hmac
import ipaddress
from typing import TYPE_CHECKING

from retinue.errors import BadRequest, Forbidden, Misdirected, SettingsError, Unauthorized
from retinue.tokens import TokenFile
from retinue.values import is_loopback

if TYPE_CHECKING:
    from pathlib import Path

    from retinue.http.request import Request
    from retinue.settings import Settings


_STATE_CHANGING = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_LOOPBACK_NAMES = frozenset(("localhost", "ip6-localhost", "localhost.localdomain"))


class Role(enum.Enum):
    """What a route needs. `PUBLIC` needs nothing; `READ` < `WRITE` < `ADMIN`; `PEER` stands for itself."""

    PUBLIC = "public"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    PEER = "peer"


_RANK = {Role.READ: 1, Role.WRITE: 2, Role.ADMIN: 3}


class Guard:
    """Decides whether a request may go on, before anything else looks at it; the short cut asks it for a connection."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = TokenFile(settings.token_file) if settings.token_file is not None else None
        self._peer_secret = _peer_secret(settings.peer_secret_file)
        self._loopback = is_loopback(settings.host)
        self._names = _LOOPBACK_NAMES | {name.lower() for name in _own_names(settings)}

    def check_host(self, request: Request) -> None:
        """Refuse a request that calls this node by a name that is not its own (DNS rebinding).

        Any IP address is accepted: a page that lures a browser here has a name, never the address itself.
        """
        raw = request.header(b"host")
        if raw is None:
            if request.scope["http_version"] == "1.0":
                return
            raise BadRequest("The request has no Host header: send one.")
        if not self.knows_host(raw):
            raise Misdirected(
                "The Host header does not name this node: use its address, or add the name to allowed_hosts."
            )

    def knows_host(self, raw: bytes) -> bool:
        """Whether a `Host` header names this node."""
        name = _host_name(raw)
        return name in self._names or _is_ip_address(name)

    @property
    def needs_tokens(self) -> bool:
        """Whether a request must carry a token."""
        return self._tokens is not None

    def check_origin(self, request: Request) -> None:
        """Refuse a change that a page of another origin asks for."""
        if request.method not in _STATE_CHANGING:
            return
        origin = request.header(b"origin")
        if origin is not None and origin.lower().partition(b"://")[2] != (request.header(b"host") or b"").lower():
            raise Forbidden("The request comes from a page of another origin: use this node's own page, or no browser.")
        if request.header(b"sec-fetch-site") in (b"cross-site", b"same-site"):
            raise Forbidden("The request comes from another site: use this node's own page, or no browser.")

    def check_role(self, needed: Role, request: Request) -> None:
        """Refuse a request whose token does not carry `needed`; raises `Unauthorized` or `Forbidden`."""
        if needed is Role.PUBLIC:
            return
        if needed is Role.PEER and self._peer_secret is not None:
            self._check_peer(request)
            return
        if self._tokens is None:
            return
        token = _bearer_token(request)
        name = None if token is None else self._tokens.role_of(token)
        if name is None:
            raise Unauthorized(
                "This needs a token: send `Authorization: Bearer <token>` with one that this node knows."
            )
        role = Role(name)
        rank = _RANK.get(needed, _RANK[Role.ADMIN])
        if _RANK[role] < rank:
            raise Forbidden(f"This needs a token with the role {_named(needed)}, and yours has {role.value}.")

    def check_fault_injection(self) -> None:
        """Refuse to change the simulated network where that is open to other machines without a token."""
        if self._tokens is None and not self._loopback:
            raise Forbidden(
                "Changing the simulated network needs an admin token on this node, which listens beyond loopback."
            )

    def _check_peer(self, request: Request) -> None:
        token = _bearer_token(request)
        assert self._peer_secret is not None
        if token is None or not hmac.compare_digest(token, self._peer_secret):
            raise Unauthorized("This is for the other nodes: send `Authorization: Bearer <peer secret>`.")


def _named(needed: Role) -> str:
    return needed.value if needed in _RANK else Role.ADMIN.value


def _bearer_token(request: Request) -> bytes | None:
    header = request.header(b"authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" and token.strip() else None


def _peer_secret(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(f"peer_secret_file={path} cannot be read: {error.strerror}.") from None
    if not secret:
        raise SettingsError(f"peer_secret_file={path} is empty: put a random secret into it.")
    return secret


def _own_names(settings: Settings) -> set[str]:
    names = {settings.host, settings.peer_host, *settings.allowed_hosts}
    names.add(_host_name(settings.advertise_url.partition("://")[2].encode()))
    return names


def _host_name(raw: bytes) -> str:
    """The name in a `Host` header, in lower case, without port and without a trailing dot."""
    text = raw.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].removesuffix(".")


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
