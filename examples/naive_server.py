"""A replicated key-value store as one writes it at first, wrong on purpose: `retinue lab faults` finds what is wrong.

The leader takes `POST /set`, `GET /get/<key>`, `DELETE /delete/<key>`, `GET /all`, `GET /health`, sends every change to
each follower after a random delay, and answers when `quorum` of them have it. Standard library only.
"""

import argparse
import http.client
import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Node(ThreadingHTTPServer):
    """One node: a leader if it has followers (their ports), else a follower."""

    daemon_threads, request_queue_size = True, 128

    def __init__(self, port: int, followers: list[int], quorum: int, max_delay_ms: float) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.followers, self.quorum, self.max_delay_ms = followers, quorum, max_delay_ms
        self.data: dict[str, object] = {}

    def apply(self, change: dict[str, object]) -> bool:
        """Take a change; the leader passes it on. Whether the quorum has it."""
        if "value" in change:
            self.data[str(change["key"])] = change["value"]  # the last to arrive wins: nothing says which is newer
        else:
            self.data.pop(str(change["key"]), None)  # no trace is left, so a put that comes late brings the key back
        done, acknowledged = threading.Event(), list[int]()

        def send(follower: int) -> None:
            time.sleep(random.uniform(0, self.max_delay_ms) / 1000)  # noqa: S311 - a simulated network, no secret
            if done.is_set():
                return  # "the quorum is met, so why go on?": this follower never gets the change
            connection = http.client.HTTPConnection("127.0.0.1", follower, timeout=5)
            connection.request("POST", "/replicate", json.dumps(change))
            connection.getresponse().read()
            acknowledged.append(follower)
            if len(acknowledged) >= self.quorum:
                done.set()

        for follower in self.followers:
            threading.Thread(target=send, args=(follower,), daemon=True).start()
        return not self.followers or done.wait(10)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def answer(self) -> None:
        """Route the request by its method and the first word of its path."""
        node, (word, _, key) = self.server, self.path[1:].partition("/")
        assert isinstance(node, Node)
        match self.command, word:
            case "GET", "health":
                self.reply(200, {"status": "healthy", "role": "leader" if node.followers else "follower"})
            case "GET", "all":
                self.reply(200, dict(node.data))
            case "GET", "get" if key:
                found = key in node.data
                self.reply(200 if found else 404, {"key": key, "value": node.data.get(key)})
            case "POST", "set" | "replicate":
                self.change(node, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            case "DELETE", "delete" if key:
                self.change(node, {"key": key})
            case _:
                self.reply(404, {"error": "no such address"})

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names that http.server wants

    def change(self, node: Node, change: dict[str, object]) -> None:
        """Apply a change and say whether it worked."""
        self.reply(200, {"status": "success"}) if node.apply(change) else self.reply(504, {"error": "no quorum"})

    def reply(self, status: int, body: object) -> None:
        """Send JSON."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing for each request."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Start a leader and its followers on this port and those after it.")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--start", type=int, default=5, metavar="FOLLOWERS")
    parser.add_argument("--quorum", type=int, default=3)
    parser.add_argument("--max-delay-ms", type=float, default=1000)
    given = parser.parse_args()
    ports = [given.port + number for number in range(1, given.start + 1)]
    for port in ports:
        threading.Thread(target=Node(port, [], 0, 0).serve_forever, daemon=True).start()
    leader = Node(given.port, ports, given.quorum, given.max_delay_ms)
    print(f"leader on port {given.port}, followers on {ports}", flush=True)
    leader.serve_forever()
