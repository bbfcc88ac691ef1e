"""How the values of settings are read: from text (environment, flags) or as they stand in a TOML file.

Each function takes one value and returns the value meant, or raises `ValueError` with a phrase that says what to use.
Reading a value that was read before returns it unchanged.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

Parse = Callable[[object], object]

_ON, _OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOST_PATTERN = re.compile(r"[A-Za-z0-9._:%-]{1,255}")


def integer(low: int, high: int) -> Parse:
    """A whole number from `low` to `high`."""

    def parse(raw: object) -> int:
        text = "" if isinstance(raw, bool) else str(raw).strip()
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text) or not low <= int(text) <= high:
            raise ValueError(f"use a whole number from {low} to {high}")
        return int(text)

    return parse


def number(low: float, high: float) -> Parse:
    """A finite number from `low` to `high`, fractions allowed."""

    def parse(raw: object) -> float:
        try:
            value = math.nan if isinstance(raw, bool) else float(str(raw))
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ValueError(f"use a number from {low:g} to {high:g}")
        return value

    return parse


def choice(*names: str) -> Parse:
    """One of these words, in any case."""

    def parse(raw: object) -> str:
        for name in names:
            if str(raw).strip().lower() == name.lower():
                return name
        raise ValueError(f"use one of {', '.join(names)}")

    return parse


def switch(raw: object) -> bool:
    """On or off."""
    word = str(raw).strip().lower()
    if word not in _ON + _OFF:
        raise ValueError("use true or false")
    return word in _ON


def path(raw: object) -> Path:
    """A path; `~` means the home directory."""
    if not isinstance(raw, str | Path) or not str(raw).strip() or "\0" in str(raw):
        raise ValueError("use a path")
    return Path(raw).expanduser()


def optional(parse: Parse) -> Parse:
    """What `parse` takes, or nothing."""
    return lambda raw: None if raw is None else parse(raw)


def host_name(raw: object) -> str:
    """A host name or an IP address, without a port."""
    text = str(raw).strip().removeprefix("[").removesuffix("]")
    if not _HOST_PATTERN.fullmatch(text) or (":" in text and not _is_ip(text)):
        raise ValueError("use a host name or an IP address, without a port")
    return text


def member_name(raw: object) -> str:
    """The name of a follower: letters, digits, dot, dash, underscore; a bare number counts as `follower<number>`."""
    text = str(raw).strip()
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 9999:
        return f"follower{int(text)}"
    if text and not _NAME_PATTERN.fullmatch(text):
        raise ValueError("use a number from 1 on, or a name of letters, digits, dots, dashes and underscores")
    return text


def node_url(raw: object) -> str:
    """The HTTP address of a node: scheme, host and port; `http://` is added where there is no scheme."""
    text = str(raw).strip().rstrip("/")
    if "://" not in text:
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(_URL_CURE) from None
    more = parts.path or parts.query or parts.fragment or "@" in parts.netloc
    if more or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(_URL_CURE)
    name = host_name(parts.hostname)
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}" + ("" if port is None else f":{port}")


_URL_CURE = "use addresses such as http://127.0.0.1:8001, without path or password"


def node_urls(raw: object) -> tuple[str, ...]:
    """Addresses of nodes, each once."""
    urls = tuple(node_url(item) for item in _items(raw))
    if len(set(urls)) != len(urls):
        raise ValueError("an address stands there twice: name each follower once")
    return urls


def host_names(raw: object) -> tuple[str, ...]:
    """Host names or addresses."""
    return tuple(host_name(item) for item in _items(raw))


def is_loopback(name: str) -> bool:
    """Whether only this machine can reach that address."""
    return name.lower() == "localhost" or (_is_ip(name) and ipaddress.ip_address(name).is_loopback)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _items(raw: object) -> list[str]:
    """The items of a list, a JSON list, or text with commas."""
    items: object = raw
    if isinstance(raw, str) and raw.lstrip().startswith("["):
        try:
            items = json.loads(raw)
        except ValueError:
            raise ValueError("this is no valid JSON list") from None
    elif isinstance(raw, str):
        items = raw.split(",")
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise ValueError("use a list of addresses")
    return [item.strip() for item in items if item.strip()]
