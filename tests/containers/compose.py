"""The compose file as a project of the tests: its own name, image and ports, each command bounded in time."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from retinue.call import Answer, call
from retinue.errors import RetinueError
from tests.containers.engine import ROOT

FOLLOWERS = tuple(f"follower{number}" for number in range(1, 6))
SERVICES = ("leader", *FOLLOWERS)

_LABEL = "label=com.docker.compose.project="
_SETTINGS = ("WRITE_QUORUM", "MIN_DELAY", "MAX_DELAY")


def docker(*arguments: str, timeout_s: float = 60, environ: dict[str, str] | None = None) -> str:
    """What a docker command prints. Its failure is a failure of the test."""
    command = ["docker", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environ, check=False)
    assert ended.returncode == 0, f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}"
    return ended.stdout.strip()


def until(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    """Wait for a condition; a node that does not answer counts as no."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except RetinueError:
            pass
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.05)


class Project:
    """The six containers. `settings` are what a user would set in the shell."""

    def __init__(self, name: str, image: str, ports: Sequence[int], **settings: str) -> None:
        self.name = name
        self.image = image
        self._ports = dict(zip(SERVICES, ports, strict=True))
        given = {f"PORT{index}": str(port) for index, port in enumerate(ports)} | settings
        outside = {name: text for name, text in os.environ.items() if name not in _SETTINGS}
        self._environ = outside | given | {"RETINUE_IMAGE": image}

    # --- commands ---

    def run(self, *arguments: str, timeout_s: float = 60) -> str:
        """`docker compose` with these arguments; an .env file in the checkout has no say."""
        options = ("--project-name", self.name, "--file", str(ROOT / "docker-compose.yml"), "--env-file", os.devnull)
        return docker("compose", *options, *arguments, timeout_s=timeout_s, environ=self._environ)

    def up(self, *arguments: str) -> None:
        """Start what is not running and wait until all of it is healthy."""
        self.run("up", "--detach", "--wait", "--wait-timeout", "90", *arguments, timeout_s=400)

    def container(self, service: str) -> str:
        """The id of a container, running or not."""
        return self.run("ps", "--all", "--quiet", service)

    def inspect(self, service: str) -> dict[str, Any]:
        """All that the engine knows of a container."""
        found: list[dict[str, Any]] = json.loads(docker("inspect", self.container(service)))
        return found[0]

    def python(self, service: str, program: str) -> str:
        """Run a program inside a container."""
        return self.run("exec", "-T", service, "python", "-c", program)

    @property
    def network(self) -> str:
        """The network between the containers."""
        return f"{self.name}_default"

    def connect(self, service: str) -> None:
        """Connect a container again, under the name of its service."""
        docker("network", "connect", "--alias", service, self.network, self.container(service))

    def disconnect(self, service: str) -> None:
        """Take a container off the network, as a pulled cable does."""
        docker("network", "disconnect", self.network, self.container(service))

    def remove(self) -> None:
        """Take everything away."""
        self.run("down", "--volumes", "--remove-orphans", "--timeout", "5", timeout_s=120)

    def left_behind(self) -> list[str]:
        """Containers, volumes and networks of this project."""
        label = _LABEL + self.name
        kinds = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
        return [line for kind in kinds for line in docker(*kind, "--quiet", "--filter", label).splitlines()]

    # --- requests ---

    def url(self, service: str) -> str:
        """Where a service is reached from here."""
        return f"http://127.0.0.1:{self._ports[service]}"

    def ask(
        self, service: str, path: str, *, method: str = "GET", document: object = None, timeout_s: float = 15
    ) -> Answer:
        """One request to a service."""
        body = None if document is None else json.dumps(document).encode()
        headers = {} if document is None else {"Content-Type": "application/json"}
        return call(self.url(service), method, path, body=body, headers=headers, timeout_s=timeout_s)

    def put(self, key: str, value: str, *, to: str = "leader", timeout_ms: int = 4000) -> Answer:
        """Write a value."""
        path = f"/kv/{key}?timeout_ms={timeout_ms}"
        return self.ask(to, path, method="PUT", document={"value": value})

    def has(self, service: str, key: str, value: str) -> bool:
        """Whether a service shows this value."""
        answer = self.ask(service, f"/kv/{key}?read=local")
        return answer.status == 200 and answer.json()["value"] == value

    def promote(self, service: str) -> None:
        """Make a service the leader."""
        answer = self.ask(service, "/promote", method="POST", document={})
        assert answer.status == 200, answer.body

    def followers_in(self, leader: str, state: str) -> list[str]:
        """The nodes that the leader sees in a state."""
        followers: Any = self.ask(leader, "/status").json()["followers"]
        return sorted(follower["name"] for follower in followers if follower["state"] == state)

    def heal(self) -> None:
        """Undo what tests did: six nodes run, reach each other and follow the leader."""
        for service in SERVICES:
            seen = self.inspect(service)
            if seen["State"]["Paused"]:
                docker("unpause", seen["Id"])
            if self.network not in seen["NetworkSettings"]["Networks"]:
                self.connect(service)
        self.up()
        if self.ask("leader", "/leader").status != 200:
            self.promote("leader")
        until(lambda: self.followers_in("leader", "live") == sorted(FOLLOWERS), "all five followers are live")
