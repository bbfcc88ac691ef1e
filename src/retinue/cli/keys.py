"""The verbs that talk to a running node over HTTP: keys and values, its status, its configuration."""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

from retinue.call import Answer, call, quoted
from retinue.cli import output, status
from retinue.cli.options import Verbs, add_url_option, add_verb
from retinue.errors import EXIT_DONE, BadRequest, NotLeader
from retinue.settings import PREFIX

MAX_HOPS = 3
"""How often a hint at the leader is followed: the leader may change while we look for it, but not forever."""

PAGE_SIZE = 1000
ANSWER_MARGIN_S = 10.0
"""How much longer than the deadline of a write its answer is waited for."""

LONGEST_DEADLINE_S = 3600.0


def register(verbs: Verbs[argparse.ArgumentParser]) -> None:
    """Add these verbs."""
    _register_writes(verbs)
    get = add_verb(verbs, "get", _get, "print the value of a key")
    get.add_argument("key", metavar="KEY")
    get.add_argument("--read", choices=("committed", "strong", "local"), help="how fresh the answer must be")
    get.add_argument("--min-version", metavar="TOKEN", help="see at least this: the session token of a write's receipt")
    scan = add_verb(verbs, "scan", _scan, "list keys and values in order")
    scan.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="only keys that begin so")
    scan.add_argument("--after", metavar="KEY", default="", help="only keys behind this one")
    scan.add_argument("--limit", metavar="N", type=int, help="at most so many (default: all)")
    seen = add_verb(verbs, "status", _status, "show the cluster as a node sees it")
    config = add_verb(verbs, "config", _config, "show or change what is in force on a node")
    config.add_argument("changes", metavar="NAME=VALUE", nargs="*", help="such as write_quorum=2 or max_delay_ms=50")
    promote = add_verb(verbs, "promote", _promote, "make a node the leader")
    promote.add_argument("--accept-loss", action="store_true", help="go on although acknowledged writes may be lost")
    for parser in (get, scan, seen, config, promote):
        add_url_option(parser)


def _register_writes(verbs: Verbs[argparse.ArgumentParser]) -> None:
    put = add_verb(verbs, "put", _put, "store a value under a key")
    put.add_argument("key", metavar="KEY")
    put.add_argument("value", metavar="VALUE", nargs="?", help="text; leave it out with --file")
    put.add_argument("--file", metavar="PATH", help="take the bytes of this file as the value; - is standard input")
    put.add_argument("--json-value", action="store_true", help="VALUE is JSON, such as 42 or [1, 2]")
    put.add_argument("--if-absent", action="store_true", help="only if the key has no value")
    delete = add_verb(verbs, "delete", _delete, "remove a key")
    delete.add_argument("key", metavar="KEY")
    for parser in (put, delete):
        parser.add_argument("--if-version", metavar="N", type=int, help="only if this is the version of the key")
        parser.add_argument("--id", metavar="ID", help="a retry with the same id is not written twice")
        parser.add_argument("--w", metavar="N", help="followers that must acknowledge: a number, majority or all")
        parser.add_argument("--timeout-ms", metavar="MS", type=float, help="deadline of the write")
        add_url_option(parser)


def _put(parsed: argparse.Namespace) -> int:
    if (parsed.value is None) == (parsed.file is None):
        raise BadRequest("Give either a value or --file.")
    if parsed.if_absent and parsed.if_version is not None:
        raise BadRequest("Give either --if-absent or --if-version.")
    if parsed.file is not None:
        body, content_type = _file_content(parsed.file), "application/octet-stream"
    else:
        body, content_type = _json_body(parsed.value, is_json=parsed.json_value), "application/json"
    headers = {"Content-Type": content_type} | _conditions(parsed)
    return _show_receipt(parsed, _write(parsed, "PUT", body, headers))


def _delete(parsed: argparse.Namespace) -> int:
    return _show_receipt(parsed, _write(parsed, "DELETE", None, _conditions(parsed)))


def _get(parsed: argparse.Namespace) -> int:
    query = {"read": parsed.read, "min_version": parsed.min_version}
    found = _ask_leader(parsed.url, "GET", f"/kv/{quoted(parsed.key)}{_query(query)}").json()
    if parsed.json:
        output.show_json(found)
    else:
        output.show_value(_content(found))
    return EXIT_DONE


def _scan(parsed: argparse.Namespace) -> int:
    if parsed.limit is not None and parsed.limit < 1:
        raise BadRequest("--limit must be a whole number from 1 on.")
    items: list[Mapping[str, object]] = []
    after: object = parsed.after
    version: object = 0
    while after is not None and (parsed.limit is None or len(items) < parsed.limit):
        limit = PAGE_SIZE if parsed.limit is None else min(PAGE_SIZE, parsed.limit - len(items))
        page = _ask(parsed, "GET", "/kv" + _query({"prefix": parsed.prefix, "after": after, "limit": limit})).json()
        found, after, version = page.get("items"), page.get("next"), page.get("version")
        items.extend(found if isinstance(found, list) else [])
    if parsed.json:
        output.show_json({"items": items, "next": after, "version": version})
        return EXIT_DONE
    for item in items:
        output.say(f"{output.safe(item.get('key'))}\t{output.safe(_shown(item))}")
    return EXIT_DONE


def _status(parsed: argparse.Namespace) -> int:
    document = _ask(parsed, "GET", "/status").json()
    if parsed.json:
        output.show_json(document)
    else:
        status.show(document)
    return EXIT_DONE


def _config(parsed: argparse.Namespace) -> int:
    if not parsed.changes:
        return _show(parsed, _ask(parsed, "GET", "/config").json())
    changes = {}
    for change in parsed.changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise BadRequest(f"{change} is no change: write NAME=VALUE, such as write_quorum=2.")
        changes[name] = _lenient_json(text)
    return _show(parsed, _ask(parsed, "PATCH", "/config", json.dumps(changes).encode()).json())


def _promote(parsed: argparse.Namespace) -> int:
    body = json.dumps({"accept_loss": parsed.accept_loss}).encode()
    promoted = _ask(parsed, "POST", "/promote", body).json()
    if parsed.json:
        output.show_json(promoted)
    else:
        output.say(str(promoted.get("message")))
    return EXIT_DONE


# --- requests ---


def _ask(parsed: argparse.Namespace, method: str, path: str, body: bytes | None = None) -> Answer:
    headers = {"Content-Type": "application/json"} if body is not None else {}
    return call(parsed.url, method, path, body=body, headers=headers, token=_token()).checked()


def _write(parsed: argparse.Namespace, method: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
    path = f"/kv/{quoted(parsed.key)}" + _query({"w": parsed.w, "timeout_ms": parsed.timeout_ms})
    deadline_s = (parsed.timeout_ms or 0) / 1000
    # The node refuses a deadline that is no sensible number, and does so at once.
    timeout_s = ANSWER_MARGIN_S + (deadline_s if 0 <= deadline_s <= LONGEST_DEADLINE_S else 0)
    return _ask_leader(parsed.url, method, path, body, headers, timeout_s)


def _ask_leader(
    url: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = ANSWER_MARGIN_S,
) -> Answer:
    """Ask a node, and then the leader if that node names another one: a refusal has done nothing."""
    for hop in range(MAX_HOPS + 1):
        answer = call(url, method, path, body=body, headers=headers or {}, token=_token(), timeout_s=timeout_s)
        try:
            return answer.checked()
        except NotLeader as refusal:
            leader = refusal.fields.get("leader")
            if not isinstance(leader, str) or hop == MAX_HOPS:
                raise
            url = leader
    raise AssertionError("the last hop returns or raises")


def _conditions(parsed: argparse.Namespace) -> dict[str, str]:
    headers = {}
    if parsed.if_version is not None:
        headers["If-Match"] = f'"{parsed.if_version}"'
    if getattr(parsed, "if_absent", False):
        headers["If-None-Match"] = "*"
    if parsed.id is not None:
        if not parsed.id.isascii() or not parsed.id.isprintable():
            raise BadRequest("An id must be printable ASCII text.")
        headers["Idempotency-Key"] = parsed.id
    return headers


def _token() -> str:
    return os.environ.get(f"{PREFIX}TOKEN", "")


def _query(parameters: Mapping[str, object]) -> str:
    given = {name: value for name, value in parameters.items() if value not in (None, "")}
    try:
        return "?" + urlencode(given) if given else ""
    except UnicodeEncodeError:
        raise BadRequest("A key must be UTF-8 text: write other bytes into the value.") from None


# --- values ---


def _json_body(text: str, *, is_json: bool) -> bytes:
    """The body of a write. JSON goes as it was written, so that no number loses a digit on the way."""
    if is_json:
        try:
            json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"The value is not JSON ({error}): leave out --json-value to store it as text.") from None
        return f'{{"value": {text}}}'.encode("utf-8", "surrogateescape")
    try:
        return json.dumps({"value": text}, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadRequest("The value is not UTF-8 text: give it with --file.") from None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _file_content(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise BadRequest(f"The file {name} cannot be read: {error.strerror}.") from None


def _content(item: Mapping[str, object]) -> bytes:
    """The value as bytes: a string as its text, anything else as JSON."""
    value = item.get("value")
    if item.get("encoding") == "base64" and isinstance(value, str):
        return base64.b64decode(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return json.dumps(value, ensure_ascii=False).encode()


def _shown(item: Mapping[str, object]) -> str:
    return _content(item).decode("utf-8", "backslashreplace")


def _lenient_json(text: str) -> object:
    """A value of the configuration: JSON if it is any, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _show(parsed: argparse.Namespace, document: Mapping[str, object]) -> int:
    if parsed.json:
        output.show_json(document)
    else:
        output.show_mapping(document)
    return EXIT_DONE


def _show_receipt(parsed: argparse.Namespace, answer: Answer) -> int:
    receipt = answer.json()
    if parsed.json:
        output.show_json(receipt)
        return EXIT_DONE
    acks, required = receipt.get("acks"), receipt.get("required_quorum")
    noun = "acknowledgement" if acks == 1 else "acknowledgements"
    output.say(
        f"{receipt.get('outcome')} as version {receipt.get('version')}: {acks} {noun}, {required} required "
        f"({receipt.get('total_time_ms')} ms, session {receipt.get('session')})"
    )
    return EXIT_DONE
