"""How a server is asked: found out from its description or by asking, and its answers in whatever shape they come."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractContextManager, closing

import pytest

from retinue.call import call
from retinue.errors import ClusterError, SettingsError, Unauthorized, Unreachable
from retinue.lab.connection import Reply, Servers
from retinue.lab.targets import answers
from retinue.lab.targets.contract import Acknowledgement, Cell, Outcome
from retinue.lab.targets.dialects import DIALECTS, NAMES, Spoken
from retinue.lab.targets.recognition import recognise
from retinue.ports import free_ports
from tests.lab.serving import Routes, rude_server, serving, store_routes

SET = store_routes("POST /set", "GET /get/{key}", "GET /all", delete="DELETE /delete/{key}", wrapped="data")
WRITE = store_routes("POST /write", "GET /read", "GET /dump")
CANONICAL = store_routes("PUT /kv/{key}", "GET /kv/{key}", "GET /data", delete="DELETE /kv/{key}")


def told_by(url: str, dialect: str | None = None) -> Spoken:
    async def run() -> Spoken:
        with closing(Servers()) as servers:
            return await recognise(servers.at(url), dialect)

    return asyncio.run(run())


def described(paths: object) -> AbstractContextManager[str]:
    return serving({"GET /openapi.json": lambda *_: (200, {"openapi": "3.1.0", "paths": paths})})


def addresses(spoken: Spoken) -> list[str]:
    forms = (spoken.write, spoken.read, spoken.delete, spoken.dump)
    return ["-" if form is None else str(form) for form in forms]


# --- which dialect ---

SET_FORMS = ["POST /set", "GET /get/{key}", "DELETE /delete/{key}", "GET /all"]
WRITE_FORMS = ["POST /write", "GET /read?key={key}", "-", "GET /dump"]
CANONICAL_FORMS = ["PUT /kv/{key}", "GET /kv/{key}", "DELETE /kv/{key}", "GET /data"]


@pytest.mark.parametrize(
    ("routes", "expected"),
    [(SET, SET_FORMS), (WRITE, WRITE_FORMS), (CANONICAL, CANONICAL_FORMS)],
    ids=NAMES[1:] + NAMES[:1],
)
@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_told_by_asking_a_framework(routes: Routes, expected: list[str], version: str) -> None:
    with serving(routes, version=version) as url:
        assert addresses(told_by(url)) == expected


@pytest.mark.parametrize(("routes", "expected"), [(SET, SET_FORMS), (WRITE, WRITE_FORMS)], ids=["set", "write"])
def test_told_by_asking_a_plain_server(routes: Routes, expected: list[str]) -> None:
    with serving(routes, framework=False) as url:
        assert addresses(told_by(url)) == expected


def test_asking_writes_nothing() -> None:
    with serving(SET) as url:
        told_by(url)
        told_by(url, "write")

        assert call(url, "GET", "/all").json()["data"] == {}


def test_the_description_of_a_server_is_believed() -> None:
    paths = {"/write": "post", "/read/{name}": "get", "/delete": "delete", "/store": "get"}
    with described({path: {method: {}} for path, method in paths.items()}) as url:
        assert addresses(told_by(url)) == ["POST /write", "GET /read/{key}", "DELETE /delete?key={key}", "GET /store"]


def test_a_description_without_any_dialect() -> None:
    pattern = r"/openapi.json none of the dialects canonical \(PUT /kv/\{key\}\), set"
    with described({"/pets": {"get": {}}}) as url, pytest.raises(ClusterError, match=pattern):
        told_by(url)


def test_a_server_that_nothing_tells_the_dialect_of() -> None:
    pattern = r"\(tried /openapi.json, .*/dump.*--dialect, canonical, set, write\.$"
    routes = store_routes("POST /put", "GET /fetch", "GET /everything")
    with serving(routes) as url, pytest.raises(ClusterError, match=pattern):
        told_by(url)


def test_a_dialect_that_is_given_needs_no_sign() -> None:
    routes = store_routes("POST /write", "GET /read", "GET /everything")
    with serving(routes, framework=False) as url:
        assert addresses(told_by(url, "write"))[:2] == ["POST /write", "GET /read?key={key}"]


def test_a_dialect_that_does_not_exist() -> None:
    with pytest.raises(SettingsError, match="--dialect=esperanto is not known: use one of canonical, set, write"):
        told_by("http://127.0.0.1:1", "esperanto")


def test_nobody_listens() -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(Unreachable, match=f"No server answers at {url} .Connection refused."):
        told_by(url)


def test_not_http() -> None:
    async def run() -> None:
        async with rude_server(b"SSH-2.0-OpenSSH_9.2\r\n") as server:
            await recognise(Servers().at(server.url))

    with pytest.raises(ClusterError, match="is not HTTP"):
        asyncio.run(run())


def test_a_token_is_needed() -> None:
    routes: Routes = {"GET /openapi.json": lambda *_: (401, {"error": "who are you?"})}
    with serving(routes) as url, pytest.raises(Unauthorized, match="RETINUE_TOKEN"):
        told_by(url)


@pytest.mark.parametrize("dialect", DIALECTS, ids=NAMES)
def test_keys_stay_what_they_are(dialect: object) -> None:
    (found,) = (known for known in DIALECTS if known is dialect)
    path = found.reads[0].address("a/b ?&é")
    assert path.endswith("a%2Fb%20%3F%26%C3%A9")
    assert found.write.body("k", "v") in ({"value": "v"}, {"key": "k", "value": "v"})


# --- what answers mean ---


def reply(told: object, status: int = 200, content_type: str = "application/json") -> Reply:
    body = told if isinstance(told, bytes) else json.dumps(told).encode()
    return Reply(status, {"content-type": content_type}, body, 2.0)


@pytest.mark.parametrize(
    "told",
    [
        {"a": {"value": "x", "version": 3}, "b": {"value": "y", "version": 4}},
        {"role": "leader", "data": {"a": {"value": "x", "version": 3}, "b": {"value": "y", "version": 4}}},
        {"store": {"a": ["x", 3], "b": ["y", 4]}, "count": 2},
        {"data": {"a": "x", "b": "y"}, "versions": {"a": 3, "b": 4}},
        {"items": [{"key": "a", "value": "x", "version": 3}, {"key": "b", "value": "y", "version": 4}], "next": None},
        [{"key": "a", "value": "x", "version": 3}, {"key": "b", "value": "y", "version": 4}],
        {"a": {"value": "x", "version": 3}, "b": {"value": "y", "version": 4}, "c": {"value": "z", "deleted": True}},
    ],
)
def test_dumps_with_versions(told: object) -> None:
    assert answers.cells_from(reply(told)) == {"a": Cell("x", 3), "b": Cell("y", 4)}


@pytest.mark.parametrize("told", [{"a": "x", "data": "y"}, {"data": {"a": "x", "data": "y"}}])
def test_dumps_of_plain_values(told: object) -> None:
    assert answers.cells_from(reply(told)) == {"a": Cell("x", 0), "data": Cell("y", 0)}


@pytest.mark.parametrize("told", [{}, {"data": {}}, [], {"role": "leader", "store": {}}])
def test_empty_dumps(told: object) -> None:
    assert answers.cells_from(reply(told)) == {}


@pytest.mark.parametrize(("told", "status"), [([1, 2], 200), ("text", 200), (b"<html>", 200), ({"a": "x"}, 500)])
def test_what_is_no_dump(told: object, status: int) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        answers.cells_from(reply(told, status))


@pytest.mark.parametrize(
    ("told", "cell"),
    [
        ({"key": "k", "value": "x", "version": 3}, Cell("x", 3)),
        ({"value": {"value": "x", "version": 3}}, Cell("x", 3)),
        ({"k": "x"}, Cell("x", 0)),
        ({"status": "ok", "data": {"value": "x"}}, Cell("x", 0)),
        ("x", Cell("x", 0)),
        (b"x", Cell("x", 0)),
        ({"value": [1, {"a": None}]}, Cell('[1,{"a":null}]', 0)),
        ({"value": None, "version": 7}, Cell("null", 7)),
        ({"value": None}, None),
        ({"found": False}, None),
    ],
)
def test_reads(told: object, cell: Cell | None) -> None:
    seen = answers.seen_from(reply(told, content_type="text/plain"), 1900.0, "k")
    assert (seen.answered, seen.cell, seen.ended_ms) == (True, cell, 2000.0)


def test_reads_without_a_value() -> None:
    absent = answers.seen_from(reply({"error": "no such key"}, 404), 0.0, "k")
    assert (absent.answered, absent.cell) == (True, None)
    for strange in (reply({"status": "ok"}), reply(b"<html>", content_type="text/html"), reply({"error": "no"}, 503)):
        seen = answers.seen_from(strange, 0.0, "k")
        assert not seen.answered
        assert seen.detail


@pytest.mark.parametrize(
    ("told", "status", "outcome", "detail"),
    [
        ({"status": "success", "acks": 3}, 200, Outcome.COMMITTED, ""),
        (b"stored", 201, Outcome.COMMITTED, ""),
        ({"outcome": "committed"}, 200, Outcome.COMMITTED, ""),
        ({"outcome": "accepted", "acks": 1}, 200, Outcome.UNKNOWN, "The write was accepted and is not committed yet."),
        ({"success": False, "error": "no quorum"}, 200, Outcome.FAILED, "no quorum"),
        ({"status": "error", "message": "no quorum"}, 200, Outcome.FAILED, "no quorum"),
        (b"", 302, Outcome.FAILED, "The server answered with HTTP status 302."),
        ({"error": "key is missing"}, 400, Outcome.REFUSED, "key is missing"),
        ({"detail": "a follower"}, 403, Outcome.REFUSED, "a follower"),
        ({"detail": "no quorum"}, 503, Outcome.UNKNOWN, "no quorum"),
        ({"detail": "no quorum", "outcome": "not_written"}, 503, Outcome.REFUSED, "no quorum"),
        ({"detail": "too late", "outcome": "unknown"}, 504, Outcome.UNKNOWN, "too late"),
    ],
)
def test_outcomes_of_writes(told: object, status: int, outcome: Outcome, detail: str) -> None:
    written = answers.written_from(reply(told, status), 0.0)
    assert (written.outcome, written.detail) == (outcome, detail)


def test_acknowledgements_that_were_asked_for() -> None:
    accepted = reply({"outcome": "accepted", "acks": 2})
    assert answers.written_from(accepted, 0.0, wanted_acks=2).outcome is Outcome.COMMITTED
    assert answers.written_from(accepted, 0.0, wanted_acks=3).outcome is Outcome.UNKNOWN


def test_deleting_what_is_not_there_is_done() -> None:
    gone = answers.written_from(reply({"error": "no such key"}, 404), 0.0, deleting=True)
    assert (gone.outcome, gone.version) == (Outcome.COMMITTED, 0)


def test_members_of_receipts() -> None:
    told = {
        "version": 7,
        "session": "1.7",
        "acked_by": [{"node": "follower2", "ms": 3.5}, "follower1"],
        "delays_ms": {"follower2": 3.1},
        "replication_time_ms": 4,
    }
    written = answers.written_from(reply(told), 1990.0)
    assert (written.version, written.session, written.server_ms, written.latency_ms) == (7, "1.7", 4.0, 10.0)
    assert written.acked_by == (Acknowledgement("follower2", 3.5),)
    assert written.delays_ms == {"follower2": 3.1}


def test_a_time_without_a_unit_is_not_taken() -> None:
    assert answers.written_from(reply({"latency": 0.5, "version": True}), 0.0).server_ms is None
