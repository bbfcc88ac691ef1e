"""One HTTP request to a node, for commands and for the local cluster: no pool, no retries, no proxies."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from retinue.errors import BadRequest, QuorumTimeout, RetinueError, Unreachable, from_problem

DEFAULT_TIMEOUT_S = 10.0
_READING = ("GET", "HEAD")


@dataclass(frozen=True)
class Answer:
    """What a node answered. `headers` have names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        """The body as a JSON object. Raises `RetinueError` if it is none."""
        try:
            decoded = json.loads(self.body)
        except ValueError:
            decoded = None
        if not isinstance(decoded, dict):
            raise RetinueError(f"This is not a retinue node: it answered {self.status} without a JSON object.")
        return decoded

    def checked(self) -> Answer:
        """This answer. Raises the error that it tells of, if it does."""
        if self.status < 400:
            return self
        try:
            problem = self.json()
        except RetinueError:
            problem = {}
        raise from_problem(self.status, problem)


def call(
    url: str,
    method: str,
    path: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    token: str = "",
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Answer:
    """Send one request and read the whole answer; any status is an answer.

    Raises `Unreachable` when nothing was sent, or when the answer of a read was lost; `QuorumTimeout` (outcome unknown)
    when a write was sent and its answer was lost.
    """
    connection, prefix = _connection(url, timeout_s)
    try:
        connection.connect()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise Unreachable(f"No node answers at {url} ({reason}): start it, or give another address.") from None
    try:
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            connection.request(method, prefix + path, body, {**authorization, **(headers or {})})
        except (http.client.InvalidURL, ValueError):
            # The reason is left out, because it quotes the token.
            raise BadRequest(
                "The address, the token or the id has characters that HTTP does not allow: correct it."
            ) from None
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        if method in _READING:
            raise Unreachable(f"The node at {url} did not finish its answer ({reason}): try again.") from None
        raise QuorumTimeout(f"The answer of {url} was lost ({reason}): read the key to see what happened.") from None
    finally:
        connection.close()
    return Answer(response.status, {name.lower(): text for name, text in response.getheaders()}, content)


def quoted(text: str) -> str:
    """A key as one segment of an address. Raises `BadRequest` for text that is not UTF-8."""
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise BadRequest("A key must be UTF-8 text: write other bytes into the value.") from None


def _connection(url: str, timeout_s: float) -> tuple[http.client.HTTPConnection, str]:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        raise _no_address(url) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _no_address(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        return kind(parts.hostname, port, timeout=timeout_s), parts.path.rstrip("/")
    except http.client.InvalidURL:
        raise _no_address(url) from None


def _no_address(url: str) -> BadRequest:
    return BadRequest(f"{url} is not an address: use one such as http://127.0.0.1:8000.")
