"""What schemathesis does after each request to a cluster: it mends what a request may break by design.

`PATCH /config` may cut, slow down or lose what the nodes send each other, and `POST /promote` may move the leadership.
Both are tested like all the others; only what they leave behind would make others answer 503 and 504. Schemathesis
loads this file; the environment says which node is to lead.
"""

from __future__ import annotations

import http.client
import json
import os
from typing import Any
from urllib.parse import urlsplit

import schemathesis
from schemathesis import Case, HookContext, Response

WAIT_S = 60.0
LEADER = os.environ["RETINUE_TEST_LEADER"]


def ask(url: str, method: str, path: str, body: object = None) -> Any:
    """The answer of a node, which must be a success."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=WAIT_S)
    headers = {"Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    told = json.loads(answer.read())
    connection.close()
    assert answer.status == 200, told
    return told


WRITE_QUORUM = ask(LEADER, "GET", "/config")["write_quorum"]


def mend_network(url: str) -> None:
    """Make all links of a node plain ones."""
    config = ask(url, "GET", "/config")
    peers = [name for name in config["members"] if name != config["node"]]
    plain = {"min_delay_ms": 0, "max_delay_ms": 0, "loss": 0, "in_order_delivery": False}
    ask(url, "PATCH", "/config", plain | {"links": dict.fromkeys(peers), "cut": []})


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    """Mend what a request has changed that was done."""
    if response.status_code != 200:
        return
    address = urlsplit(str(response.request.url))
    url = f"{address.scheme}://{address.netloc}"
    if (case.method, case.path) == ("PATCH", "/config"):
        mend_network(url)
        # Only now, for a change of the quorum is a write, which waits for the others.
        ask(LEADER, "PATCH", "/config", {"write_quorum": WRITE_QUORUM})
    elif (case.method, case.path) == ("POST", "/promote") and url != LEADER:
        ask(LEADER, "POST", "/promote", {})
