"""Every setting once: name, default, environment names, allowed values, meaning.

A value comes from a flag, else the environment, else a TOML file, else the default. Each environment name that
`Setting.environment` lists means the same setting; two of them with different values are refused.
All defaults that depend on another setting are filled in when a `Settings` is made, so whoever holds one need not ask.
"""

from __future__ import annotations

import dataclasses
import socket
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from retinue.errors import SettingsError
from retinue.values import (
    Parse,
    choice,
    host_name,
    host_names,
    integer,
    is_loopback,
    member_name,
    node_url,
    node_urls,
    number,
    optional,
    path,
    switch,
)

PREFIX = "RETINUE_"
PEER_PORT_OFFSET = 1000
RESP_PORT_OFFSET = 1600
DEFAULT_WRITE_QUORUM = 3

MIB = 1 << 20
PORT_MAX = 65535
HTTP_PORT_MAX = PORT_MAX - PEER_PORT_OFFSET
COUNT_MAX, BYTES_MAX, MS_MAX = 1 << 31, 1 << 40, 86_400_000

_ROLE = choice("leader", "follower")
_SECONDS = number(0.01, 86_400)


@dataclass(frozen=True)
class Setting:
    """The definition of one setting. `default_text` replaces the default in documentation where that is computed."""

    name: str
    parse: Parse
    help: str
    unit: str
    aliases: tuple[str, ...]
    default: object
    default_text: str
    derive: Callable[[Settings], object] | None

    @property
    def environment(self) -> tuple[str, ...]:
        """Every environment name of this setting, the canonical one first."""
        names = [PREFIX + self.name.upper(), *(PREFIX + alias for alias in self.aliases), *self.aliases]
        return tuple(dict.fromkeys(names))

    @property
    def flag(self) -> str:
        """The option of `retinue serve`."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_switch(self) -> bool:
        """Whether the option takes no value."""
        return self.parse is switch


def _setting(
    parse: Parse,
    help_text: str,
    default: object = None,
    *,
    unit: str = "",
    aliases: tuple[str, ...] = (),
    default_text: str = "",
    derive: Callable[[Settings], object] | None = None,
) -> Any:
    definition = Setting("", parse, help_text, unit, aliases, default, default_text, derive)
    return field(default=default, metadata={"setting": definition})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one node. Making one checks every value; `SettingsError` names what is wrong and the cure.

    `sources` has, for each setting that was given and not left at its default, how the user called it.
    """

    role: str = _setting(_ROLE, "what this node starts as", "leader", aliases=("ROLE", "NODE_ROLE"))
    host: str = _setting(host_name, "address to listen on; see `insecure`", "127.0.0.1")
    port: int = _setting(
        integer(0, PORT_MAX),
        "HTTP port; 0 takes a free one",
        aliases=("PORT",),
        default_text="8000, on a follower 8001",
        derive=lambda s: 8000 if s.role == "leader" else 8001,
    )
    peer_port: int = _setting(
        integer(0, PORT_MAX),
        "port of the links between nodes; the others expect it at the HTTP port + 1000",
        default_text="`port` + 1000",
        derive=lambda s: s.port + PEER_PORT_OFFSET if s.port else 0,
    )
    resp_port: int = _setting(
        integer(0, PORT_MAX),
        "port of the Redis protocol; 0 takes a free one",
        default_text="`port` - 1600, where that is above 1023; a node that finds it in use goes on without",
        derive=lambda s: s.port - RESP_PORT_OFFSET if s.port >= RESP_PORT_OFFSET + 1024 else 0,
    )
    resp: bool = _setting(
        switch,
        "listen for clients of the Redis protocol as well",
        default_text="true where `host` is loopback and there is a `resp_port`",
        derive=lambda s: is_loopback(s.host) and (s.resp_port > 0 or not s.port or "resp_port" in s.explicit),
    )
    followers: tuple[str, ...] = _setting(
        node_urls,
        "HTTP addresses of the followers, separated by commas or as a JSON list; needed on the leader only",
        (),
        aliases=("FOLLOWERS", "FOLLOWER_HOSTS", "FOLLOWER_URLS"),
        default_text="none",
    )
    follower_id: str = _setting(
        member_name,
        "name of a follower until the leader tells it its name; a number `3` means `follower3`",
        "",
        aliases=("FOLLOWER_ID",),
        default_text="none",
    )
    advertise_url: str = _setting(
        node_url,
        "address of this node as clients reach it; followers give the leader's to whoever wants to write",
        default_text="`http://<host>:<port>`",
        derive=lambda s: f"http://{_bracketed(s.reachable_host)}:{s.port}",
    )
    peer_host: str = _setting(
        host_name,
        "host under which the other nodes reach this node's peer port",
        default_text="`host`, or the host name when listening on every address",
        derive=lambda s: s.reachable_host,
    )
    data_dir: Path = _setting(
        path,
        "directory of this node's data; made when it is missing",
        aliases=("DATA_DIR",),
        default_text="`.retinue/<name of the node>`",
        derive=lambda s: Path(".retinue") / s.name,
    )
    memory: bool = _setting(switch, "keep everything in memory: a restart forgets it", default=False)
    synchronous: str = _setting(
        choice("FULL", "NORMAL", "OFF"),
        "FULL: a commit survives a power cut; NORMAL: one may lose acknowledged writes; OFF: for tests",
        "FULL",
    )
    write_quorum: int = _setting(
        integer(0, 1000),
        "followers that must acknowledge a write before it is committed",
        aliases=("WRITE_QUORUM", "QUORUM_SIZE"),
        default_text="3, or the number of followers where there are fewer",
        derive=lambda s: min(DEFAULT_WRITE_QUORUM, len(s.followers)) if s.role == "leader" else DEFAULT_WRITE_QUORUM,
    )
    min_delay_ms: float = _setting(
        number(0, MS_MAX),
        "smallest simulated delay of a replicated entry",
        0.0,
        unit="ms",
        aliases=("MIN_DELAY", "MIN_DELAY_MS"),
    )
    max_delay_ms: float = _setting(
        number(0, MS_MAX),
        "largest simulated delay of a replicated entry",
        0.0,
        unit="ms",
        aliases=("MAX_DELAY", "MAX_DELAY_MS"),
    )
    delay_distribution: str = _setting(
        choice("uniform", "fixed", "exponential", "lognormal"), "how delays are spread", "uniform"
    )
    loss: float = _setting(number(0, 1), "share of the frames on a link that the simulated network loses", 0.0)
    in_order_delivery: bool = _setting(
        switch, "let no replicated entry overtake another on a link with simulated delays", default=False
    )
    seed: int | None = _setting(
        optional(integer(0, 2**63 - 1)), "makes the simulated network draw the same delays again", default_text="random"
    )
    write_timeout_ms: float = _setting(
        number(1, MS_MAX), "a write without a quorum after this long is answered as `unknown`", 4000.0, unit="ms"
    )
    peer_timeout_ms: float = _setting(
        number(10, MS_MAX), "a link that is silent for this long is closed and dialled again", 10_000.0, unit="ms"
    )
    heartbeat_ms: float = _setting(number(1, MS_MAX), "time between two heartbeats on a link", 100.0, unit="ms")
    value_limit_bytes: int = _setting(integer(1, 64 * MIB), "largest value", MIB, unit="bytes")
    batch_limit: int = _setting(integer(1, 1_000_000), "most writes in one batch", 1000)
    batch_limit_bytes: int = _setting(integer(1, 64 * MIB), "largest body of one batch", 4 * MIB, unit="bytes")
    max_pending_writes: int = _setting(integer(1, COUNT_MAX), "writes that may wait at once; more are refused", 65_536)
    max_pending_bytes: int = _setting(
        integer(1, BYTES_MAX), "bytes of values that may wait at once; more are refused", 64 * MIB, unit="bytes"
    )
    log_retention: int = _setting(
        integer(0, COUNT_MAX), "versions of history to keep for catching up and for retries", 100_000, unit="versions"
    )
    min_free_bytes: int = _setting(
        integer(0, BYTES_MAX), "writes are refused while the disk has less free space than this", 64 * MIB, unit="bytes"
    )
    max_connections: int = _setting(integer(1, 1_000_000), "client connections that may be open at once", 1000)
    header_timeout_s: float = _setting(_SECONDS, "time a client may take to send headers", 5.0, unit="s")
    idle_timeout_s: float = _setting(
        _SECONDS, "time after which a connection without requests is closed", 60.0, unit="s"
    )
    token_file: Path | None = _setting(
        optional(path), "file of client tokens, see `retinue token create`", default_text="none: no token asked"
    )
    peer_secret_file: Path | None = _setting(
        optional(path), "file with the secret that all nodes share on their links", default_text="none: no secret"
    )
    insecure: bool = _setting(switch, "listen on other addresses than loopback without token and secret", default=False)
    allowed_hosts: tuple[str, ...] = _setting(
        host_names,
        "further names that a request may use for this node in its `Host` header, separated by commas",
        (),
        default_text="loopback and the node's own addresses",
    )
    log_level: str = _setting(choice("debug", "info", "warning", "error"), "least level of what is logged", "info")

    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Normalise every value, fill in the defaults that depend on others, check them together."""
        for definition in DEFINITIONS:
            value = getattr(self, definition.name)
            if value is None and definition.derive is not None:
                object.__setattr__(self, definition.name, definition.derive(self))
            else:
                object.__setattr__(self, definition.name, self._parsed(definition, value))
        self._check()

    def _parsed(self, definition: Setting, value: object) -> object:
        try:
            return definition.parse(value)
        except ValueError as error:
            name = self.sources.get(definition.name, definition.name)
            raise SettingsError(f"{name}={value} is not allowed: {error}.") from None

    @property
    def explicit(self) -> frozenset[str]:
        """The settings that were given, as opposed to left at their defaults."""
        return frozenset(self.sources)

    @property
    def name(self) -> str:
        """The name this node starts with: `leader`, `follower3`, or `follower-<port>` when it was given no number."""
        if self.role == "leader":
            return "leader"
        return self.follower_id or f"follower-{self.port}"

    @property
    def members(self) -> tuple[str, ...]:
        """The names of all members as the leader's settings say: itself first, then the followers in their order."""
        return ("leader", *(f"follower{number}" for number in range(1, len(self.followers) + 1)))

    @property
    def reachable_host(self) -> str:
        """A host under which other machines may reach this node."""
        return socket.gethostname() if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104 - compared, not bound

    def to_plain(self) -> dict[str, object]:
        """All settings as JSON values."""
        return {d.name: _plain(getattr(self, d.name)) for d in DEFINITIONS}

    def _check(self) -> None:
        if self.role == "follower" and self.follower_id == "leader":
            raise self._refuse("follower_id", "this is the name of the leader: use the follower's number")
        if self.role == "leader" and self.write_quorum > len(self.followers):
            count = len(self.followers)
            allowed = f"use 0 to {count}" if count else "use 0"
            raise self._refuse("write_quorum", f"the number of followers is {count}: {allowed}, or have more followers")
        if self.min_delay_ms > self.max_delay_ms:
            low, high = self._called("min_delay_ms"), self._called("max_delay_ms")
            shown = f"{low}={self.min_delay_ms:g} is above {high}={self.max_delay_ms:g}"
            raise SettingsError(f"{shown}: make the smallest delay the smaller one.")
        if self.peer_port > PORT_MAX:
            raise self._refuse("port", f"its peer port would be {self.peer_port}: use a port up to {HTTP_PORT_MAX}")
        for name, others in (("peer_port", {self.port}), ("resp_port", {self.port, self.peer_port})):
            if getattr(self, name) in others - {0}:
                raise self._refuse(name, "this is the HTTP port, or that of the peer links: choose another one")
        for url in self.followers:
            if not PEER_PORT_OFFSET < peer_address(url)[1] <= PORT_MAX:
                raise self._refuse("followers", f"{url} has no port from 1 to {HTTP_PORT_MAX}: use one of those")
            if self.role == "leader" and url == self.advertise_url:
                raise self._refuse("followers", f"{url} is this node itself: name only the others")
        self._check_exposure()

    def _check_exposure(self) -> None:
        if self.insecure or is_loopback(self.host):
            return
        for name in ("token_file", "peer_secret_file"):
            if getattr(self, name) is None:
                why = f"other machines reach this address and {name} is not set"
                raise self._refuse("host", f"{why}: set it, or give --insecure")

    def _called(self, name: str) -> str:
        return self.sources.get(name, name)

    def _refuse(self, name: str, why_and_cure: str) -> SettingsError:
        value = getattr(self, name)
        shown = ",".join(value) if isinstance(value, tuple) else value
        return SettingsError(f"{self._called(name)}={shown} is not allowed: {why_and_cure}.")


DEFINITIONS: tuple[Setting, ...] = tuple(
    dataclasses.replace(declared.metadata["setting"], name=declared.name)
    for declared in dataclasses.fields(Settings)
    if "setting" in declared.metadata
)


def load(flags: Mapping[str, object], environ: Mapping[str, str], toml_path: Path | None = None) -> Settings:
    """The settings from flags (by setting name; `None` means not given), the environment and a TOML file.

    Raises `SettingsError` for a value that is not allowed, for an unknown name in the file, and for two environment
    names of one setting that contradict each other.
    """
    values, sources = collect(flags, environ, toml_path)
    return Settings(**values, sources=sources)


def collect(
    flags: Mapping[str, object], environ: Mapping[str, str], toml_path: Path | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The values that were given, and how the user called each; checked by themselves only if from the environment."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    in_file = _read_toml(toml_path) if toml_path is not None else {}
    for definition in DEFINITIONS:
        found = _from_environment(definition, environ)
        if flags.get(definition.name) is not None:
            found = (definition.flag, flags[definition.name])
        elif found is None and definition.name in in_file:
            found = (definition.name, in_file[definition.name])
        if found is not None:
            sources[definition.name], values[definition.name] = found
    return values, sources


def _from_environment(definition: Setting, environ: Mapping[str, str]) -> tuple[str, object] | None:
    """The name used and the value; a variable that is empty counts as not set."""
    given = [(name, environ[name]) for name in definition.environment if environ.get(name, "").strip()]
    parsed = []
    for name, text in given:
        try:
            parsed.append(definition.parse(text))
        except ValueError as error:
            raise SettingsError(f"{name}={text} is not allowed: {error}.") from None
        if parsed[-1] != parsed[0]:
            first_name, first_text = given[0]
            both = f"{first_name}={first_text} and {name}={text} contradict each other"
            raise SettingsError(f"{both}: both mean {definition.name}, so set one.")
    return (given[0][0], parsed[0]) if given else None


def _read_toml(toml_path: Path) -> dict[str, object]:
    try:
        table = tomllib.loads(toml_path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"The settings file {toml_path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {toml_path} is not valid TOML: {error}.") from None
    for name in table.keys() - {definition.name for definition in DEFINITIONS}:
        raise SettingsError(f"The settings file {toml_path} has {name}, which is no setting: see `retinue settings`.")
    return table


def peer_address(url: str) -> tuple[str, int]:
    """Host and port of the peer links of the node at this HTTP address."""
    parts = urlsplit(url)
    default_port = 443 if parts.scheme == "https" else 80
    return parts.hostname or "", (default_port if parts.port is None else parts.port) + PEER_PORT_OFFSET


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
