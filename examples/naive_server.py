"""A replicated key-value store as one writes it at first: `retinue lab faults` finds what is wrong with it."""

import json
import os
import random
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(os.environ.get("PORT", 9000))
FOLLOWERS = [PORT + number for number in (1, 2, 3, 4, 5)]
WRITE_QUORUM = int(os.environ.get("WRITE_QUORUM", 3))
MAX_DELAY_MS = float(os.environ.get("MAX_DELAY_MS", 1000))


def send(change: dict[str, str], follower: int, confirmed: threading.Semaphore, answered: threading.Event) -> None:
    """Bring a change to one follower, after a random delay."""
    time.sleep(random.uniform(0, MAX_DELAY_MS) / 1000)  # noqa: S311 - a simulated network, no secret
    if answered.is_set():
        return  # "the quorum is met, so why go on?": this follower never gets the change
    connection = HTTPConnection("127.0.0.1", follower)
    connection.request("POST", "/replicate", json.dumps(change))
    connection.getresponse().read()
    confirmed.release()


def node(port: int, followers: list[int]) -> ThreadingHTTPServer:
    """One node: a leader if it has followers (their ports), else a follower."""
    data: dict[str, str] = {}

    class Node(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # /all, or /get/<key>
            self.reply(dict(data) if self.path == "/all" else {"value": data.get(self.path.removeprefix("/get/"))})

        def do_POST(self) -> None:  # /set from a client, or /replicate from the leader
            self.apply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def do_DELETE(self) -> None:  # /delete/<key>
            self.apply({"key": self.path.removeprefix("/delete/")})

        def apply(self, change: dict[str, str]) -> None:
            if "value" in change:
                data[change["key"]] = change["value"]  # the last to arrive wins: nothing says which is newer
            else:
                data.pop(change["key"], None)  # no trace stays, so a put that comes late brings the key back
            confirmed, answered = threading.Semaphore(0), threading.Event()
            for follower in followers:
                threading.Thread(target=send, args=(change, follower, confirmed, answered), daemon=True).start()
            for _ in range(WRITE_QUORUM if followers else 0):
                confirmed.acquire()
            answered.set()
            self.reply({"status": "success"})

        def reply(self, body: object) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None: ...  # nothing is printed for each request

    return ThreadingHTTPServer(("127.0.0.1", port), Node)


ThreadingHTTPServer.request_queue_size = 128  # so many connections may wait
servers = [node(port, []) for port in FOLLOWERS] + [node(PORT, FOLLOWERS)]
for server in servers:
    threading.Thread(target=server.serve_forever).start()
print(f"leader on port {PORT}, followers on {FOLLOWERS}", flush=True)
