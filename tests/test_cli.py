"""The command against a scripted node: what it sends, what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from retinue import cli, errors
from retinue.errors import RetinueError

RECEIPT = {"outcome": "committed", "version": 7, "acks": 3, "required_quorum": 3, "session": "1.7", "total_time_ms": 2}
Reply = tuple[int, object]


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Scripted:
    """A node that gives prepared answers and keeps what it was asked. An answer of `None` cuts the connection."""

    url: str
    answers: list[Reply | None] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)


@pytest.fixture
def make_node() -> Iterator[Callable[..., Scripted]]:
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def make(*answers: Reply | None) -> Scripted:
        node = Scripted("", list(answers))

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                node.asked.append(Asked(self.command, self.path, headers, body))
                reply = node.answers.pop(0)
                if reply is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                content = reply[1] if isinstance(reply[1], bytes) else json.dumps(reply[1]).encode()
                self.send_response(reply[0])
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_DELETE = do_POST = do_PATCH = answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        node.url = f"http://127.0.0.1:{server.server_port}"
        return node

    yield make
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_put_sends_text_and_tells_the_outcome(
    make_node: Callable[..., Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    node = make_node((200, RECEIPT))
    assert cli.main(["put", "a/b c", "42", "--url", node.url, "--w", "all", "--id", "x1", "--if-version", "3"]) == 0
    (asked,) = node.asked
    assert (asked.method, asked.path, asked.body) == ("PUT", "/kv/a%2Fb%20c?w=all", b'{"value": "42"}')
    assert (asked.headers["if-match"], asked.headers["idempotency-key"]) == ('"3"', "x1")
    assert "committed as version 7: 3 acknowledgements, 3 required" in capsys.readouterr().out


def test_put_sends_json_as_it_was_written(make_node: Callable[..., Scripted]) -> None:
    node = make_node((200, RECEIPT))
    assert (
        cli.main(["put", "k", "[1.10, 123456789012345678901]", "--json-value", "--if-absent", "--url", node.url]) == 0
    )
    assert node.asked[0].body == b'{"value": [1.10, 123456789012345678901]}'
    assert node.asked[0].headers["if-none-match"] == "*"


def test_put_sends_the_bytes_of_a_file(make_node: Callable[..., Scripted], tmp_path: Path) -> None:
    node = make_node((200, RECEIPT))
    (tmp_path / "v").write_bytes(b"\x00\xff\n")
    assert cli.main(["put", "k", "--file", str(tmp_path / "v"), "--url", node.url]) == 0
    assert (node.asked[0].body, node.asked[0].headers["content-type"]) == (b"\x00\xff\n", "application/octet-stream")


@pytest.mark.parametrize(
    "arguments",
    [
        ["put", "k"],
        ["put", "k", "v", "--file", "f"],
        ["put", "k", "v", "--if-absent", "--if-version", "1"],
        ["put", "k", "NaN", "--json-value"],
        ["put", "k", "{", "--json-value"],
        ["put", "k", "[" * 100_000, "--json-value"],
        ["put", "k", "--file", "/nonexistent/file"],
        ["put", "k\udcff", "v"],
        ["put", "k", "v\udcff"],
        ["put", "k", "v", "--id", "a\nb"],
        ["get", "k", "--url", "http://a:b"],
        ["get", "k", "--url", "ftp://a"],
        ["get", "k", "--url", "http://a b"],
        ["scan", "--limit", "0"],
        ["scan", "--limit", "-1"],
        ["config", "write_quorum"],
        ["scan", "\udcff"],
    ],
)
def test_bad_usage_ends_with_2_and_a_sentence(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"retinue: .*\.\n", said.err)


@pytest.mark.parametrize("verb", [["get", "k"], ["put", "k", "v"]])
@pytest.mark.parametrize("token", ["a\nb", "\u20ac"])
def test_what_cannot_be_sent_is_bad_usage_and_not_told(
    make_node: Callable[..., Scripted],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    verb: list[str],
    token: str,
) -> None:
    monkeypatch.setenv("RETINUE_TOKEN", token)
    node = make_node()
    assert cli.main([*verb, "--url", node.url]) == 2
    monkeypatch.delenv("RETINUE_TOKEN")
    assert cli.main([*verb, "--url", f"{node.url}/a b"]) == 2
    assert "does not allow: correct it.\n" in capsys.readouterr().err
    assert node.asked == []


@pytest.mark.parametrize("deadline", ["nan", "inf", "1e300", "-1"])
def test_the_node_judges_the_deadline(make_node: Callable[..., Scripted], deadline: str) -> None:
    node = make_node((400, errors.BadRequest("No.").problem()))
    assert cli.main(["put", "k", "v", "--timeout-ms", deadline, "--url", node.url]) == 2
    assert f"timeout_ms={float(deadline)}".replace("+", "%2B") in node.asked[0].path


def test_a_committed_read_follows_the_hint_at_the_leader(
    make_node: Callable[..., Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    leader = make_node((200, {"key": "k", "value": "blue", "version": 3}))
    follower = make_node((403, errors.NotLeader("Go to the leader.", leader=leader.url).problem()))
    assert cli.main(["get", "k", "--read", "committed", "--url", follower.url]) == 0
    assert capsys.readouterr().out == "blue"


def test_a_write_follows_the_hint_at_the_leader(make_node: Callable[..., Scripted]) -> None:
    leader = make_node((200, RECEIPT))
    follower = make_node((403, errors.NotLeader("Go to the leader.", leader=leader.url).problem()))
    assert cli.main(["put", "k", "v", "--url", follower.url]) == 0
    assert [asked.body for asked in follower.asked + leader.asked] == [b'{"value": "v"}'] * 2


def test_hints_are_not_followed_forever(make_node: Callable[..., Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    node = make_node()
    node.answers = [(403, errors.NotLeader("Not me.", leader=node.url).problem())] * 9
    assert cli.main(["delete", "k", "--url", node.url]) == 4
    assert len(node.asked) == 4
    assert "Not me." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BadRequest("No."), 2),
        (errors.KeyNotFound("No."), 3),
        (errors.NoQuorum("No."), 4),
        (errors.NoLeader("No."), 4),
        (errors.NotLeader("No."), 4),
        (errors.QuorumTimeout("No."), 6),
        (errors.ConditionFailed("No.", current=4), 1),
    ],
)
def test_exit_codes(
    make_node: Callable[..., Scripted], capsys: pytest.CaptureFixture[str], error: RetinueError, code: int
) -> None:
    node = make_node((error.status, error.problem()))
    assert cli.main(["put", "k", "v", "--json", "--url", node.url]) == code
    said = capsys.readouterr()
    assert said.err == "retinue: No.\n"
    assert json.loads(said.out) == error.problem()


def test_a_lost_answer_to_a_write_is_an_unknown_outcome(make_node: Callable[..., Scripted]) -> None:
    node = make_node(None, None)
    assert cli.main(["put", "k", "v", "--url", node.url]) == 6
    assert cli.main(["get", "k", "--url", node.url]) == 4


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        assert cli.main(["put", "k", "v", "--url", f"http://127.0.0.1:{taken.getsockname()[1]}"]) == 4
    assert "start it" in capsys.readouterr().err


def test_not_a_retinue_node(make_node: Callable[..., Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    node = make_node((200, b"<html>"), (200, b"[]"), (502, b"<html>"))
    assert [cli.main(["get", "k", "--url", node.url]) for _ in range(3)] == [1, 1, 1]
    assert "not a retinue node" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("found", "printed"),
    [
        ({"value": "blue\n"}, b"blue\n"),
        ({"value": {"a": "\u00e9"}}, '{"a": "\u00e9"}'.encode()),
        ({"value": None}, b"null"),
        ({"value": "AP8=", "encoding": "base64"}, b"\x00\xff"),
        ({"value": "\x1b[2J"}, b"\x1b[2J"),
    ],
)
def test_get_into_a_pipe_gives_the_exact_bytes(
    make_node: Callable[..., Scripted], capfdbinary: pytest.CaptureFixture[bytes], found: object, printed: bytes
) -> None:
    node = make_node((200, found))
    assert cli.main(["get", "k", "--read", "strong", "--min-version", "1.7", "--url", node.url]) == 0
    assert capfdbinary.readouterr().out == printed
    assert node.asked[0].path == "/kv/k?read=strong&min_version=1.7"


def test_get_on_a_terminal_shows_no_control_characters(make_node: Callable[..., Scripted]) -> None:
    node = make_node((200, {"value": "\x1b[2Jred\u202e\x9b\n\ttext \u00e9"}))
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "retinue", "get", "k", "--url", node.url]
    subprocess.run(command, stdout=writer, check=True)
    os.close(writer)
    shown = os.read(reader, 1000).decode()
    os.close(reader)
    assert shown == "\\x1b[2Jred\\u202e\\x9b\r\n\ttext \u00e9\r\n"


def test_scan_reads_all_pages(make_node: Callable[..., Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    pages = [
        (200, {"items": [{"key": "a", "value": 1}, {"key": "b\n", "value": "x\ty"}], "next": "b\n", "version": 5}),
        (200, {"items": [{"key": "c", "value": None}], "next": None, "version": 6}),
    ]
    node = make_node(*pages, *pages)
    assert cli.main(["scan", "p/", "--url", node.url]) == 0
    assert capsys.readouterr().out == "a\t1\nb\\n\tx\\ty\nc\tnull\n"
    assert [asked.path for asked in node.asked] == [
        "/kv?prefix=p%2F&limit=1000",
        "/kv?prefix=p%2F&after=b%0A&limit=1000",
    ]
    assert cli.main(["scan", "--limit", "2", "--json", "--url", node.url]) == 0
    assert len(json.loads(capsys.readouterr().out)["items"]) == 2


@pytest.mark.parametrize(
    ("status", "first"),
    [
        ({"role": "leader", "node": "a", "epoch": 7, "serving": True}, "a leads in epoch 7"),
        ({"role": "leader", "node": "a", "epoch": 7}, "a leads in epoch 7, and does not serve yet"),
        (
            {"role": "follower", "node": "a", "epoch": 7, "leader": "b", "leader_url": "http://b:1"},
            "a follows b at http://b:1 in epoch 7",
        ),
        ({"role": "follower", "node": "a", "epoch": 7, "leader": None}, "a knows of no leader in epoch 7"),
    ],
)
def test_status_says_first_who_leads(
    make_node: Callable[..., Scripted], capsys: pytest.CaptureFixture[str], status: dict[str, object], first: str
) -> None:
    node = make_node((200, status))
    assert cli.main(["status", "--url", node.url]) == 0
    assert capsys.readouterr().out.splitlines()[0] == first


def test_status_config_and_promote(make_node: Callable[..., Scripted], capsys: pytest.CaptureFixture[str]) -> None:
    status = {"role": "leader", "lag": {"ms": 0}, "followers": [{"name": "f\x1b", "lag_versions": 3, "link": {}}]}
    node = make_node(
        (200, status), (200, {"write_quorum": 3}), (200, {"write_quorum": 2}), (200, {"outcome": "committed"})
    )
    assert cli.main(["status", "--url", node.url]) == 0
    assert cli.main(["config", "--url", node.url]) == 0
    assert cli.main(["config", "write_quorum=2", "delay_distribution=fixed", 'cut=["f"]', "--url", node.url]) == 0
    assert cli.main(["promote", "--accept-loss", "--url", node.url]) == 0
    said = capsys.readouterr().out
    assert "f\\x1b" in said
    assert "\x1b" not in said
    assert [(asked.method, asked.path) for asked in node.asked] == [
        ("GET", "/status"),
        ("GET", "/config"),
        ("PATCH", "/config"),
        ("POST", "/promote"),
    ]
    assert json.loads(node.asked[2].body) == {"write_quorum": 2, "delay_distribution": "fixed", "cut": ["f"]}
    assert json.loads(node.asked[3].body) == {"accept_loss": True}


def test_the_token_comes_from_the_environment(make_node: Callable[..., Scripted]) -> None:
    node = make_node((200, {"value": 1}))
    environment = os.environ | {"RETINUE_TOKEN": "secret", "RETINUE_URL": node.url}
    subprocess.run([sys.executable, "-m", "retinue", "get", "k"], env=environment, check=True, capture_output=True)
    assert node.asked[0].headers["authorization"] == "Bearer secret"


def test_a_reader_that_goes_away_is_no_error(make_node: Callable[..., Scripted]) -> None:
    node = make_node((200, {"value": "x" * 1_000_000}))
    command = [sys.executable, "-m", "retinue", "get", "k", "--url", node.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_ctrl_c_while_waiting_is_told_in_one_line() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        command = [sys.executable, "-m", "retinue", "get", "k", "--url", f"http://127.0.0.1:{silent.getsockname()[1]}"]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            connection, _ = silent.accept()
            with connection:
                connection.recv(1000)
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, b"retinue: Interrupted.\n")
