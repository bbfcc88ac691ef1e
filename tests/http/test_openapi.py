"""The OpenAPI description: valid, complete, and made from what is served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from retinue.http.access import Role
from retinue.http.answer import encode_json
from retinue.http.openapi import describe
from retinue.http.routes import ROUTES, Route
from retinue.http.schemas import Known, bodies

DESCRIPTION: Any = describe(ROUTES)


def schemas_in(node: object) -> Iterator[object]:
    if isinstance(node, dict):
        for name, inner in node.items():
            if name == "schema":
                yield inner
            else:
                yield from schemas_in(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from schemas_in(inner)


def references_in(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for name, inner in node.items():
            if name == "$ref":
                yield inner
            else:
                yield from references_in(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from references_in(inner)


@pytest.mark.parametrize("known", [Known(), Known(()), Known(("follower1", "follower2"), batch_limit=5)], ids=str)
def test_every_schema_is_valid(known: Known) -> None:
    description: Any = describe(ROUTES, known)
    schemas = [*schemas_in(description["paths"]), *description["components"]["schemas"].values()]
    assert len(schemas) > 50
    for schema in schemas:
        Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere() -> None:
    for reference in references_in(DESCRIPTION):
        assert reference.rpartition("/")[2] in DESCRIPTION["components"]["schemas"], reference


def test_every_route_is_described_and_nothing_else() -> None:
    described = {(method.upper(), path) for path, methods in DESCRIPTION["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES} | {("HEAD", "/kv/{key}")}


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for methods in DESCRIPTION["paths"].values() for operation in methods.values()]
    assert len(set(ids)) == len(ids)


def test_links_lead_to_operations_and_their_parameters() -> None:
    operations = [operation for methods in DESCRIPTION["paths"].values() for operation in methods.values()]
    parameters = {o["operationId"]: {p["name"] for p in o.get("parameters", ())} for o in operations}
    links = [link for o in operations for link in o["responses"]["200"].get("links", {}).values()]
    assert len(links) == 11
    for link in links:
        assert link["parameters"].keys() <= parameters[link["operationId"]]


@pytest.mark.parametrize(
    ("name", "body", "taken"),
    [
        ("Value", {"value": {"any": [None]}}, True),
        ("Value", {"value": "/wA=", "encoding": "base64"}, True),
        ("Value", {"value": "/wA", "encoding": "base64"}, False),
        ("Value", {"value": 1, "encoding": "hex"}, False),
        ("Value", {"value": 1, "other": 1}, False),
        ("KeyAndValue", {"key": "a", "value": 1, "other": 1}, True),
        ("Batch", {"writes": [{"key": "a", "value": 1}, {"key": "a", "delete": True}]}, True),
        ("Batch", {"writes": [{"key": "a", "value": 1, "delete": True}]}, False),
        ("ReplicatedEntry", {"key": "a", "version": 1, "delete": True}, True),
        ("ReplicatedEntry", {"key": "a", "version": 1, "value": 1, "epoch": None}, True),
        ("ReplicatedEntry", {"key": "a", "version": 1}, False),
    ],
)
def test_bodies(name: str, body: object, taken: bool) -> None:
    described: Any = bodies()[name]["application/json"]["schema"]
    assert Draft202012Validator(described).is_valid(body) is taken


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_an_operation(route: Route) -> None:
    operation = DESCRIPTION["paths"][route.path][route.method.lower()]
    in_path = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"}
    assert in_path == ({route.path.partition("{")[2].rstrip("}")} if "{" in route.path else set())
    assert ("security" in operation) == (route.role is not Role.PUBLIC)
    assert {"200", "400", "421", "429", "500", "503"} <= operation["responses"].keys()
    assert ("requestBody" in operation) == (route.method in ("PUT", "POST", "PATCH"))


def test_it_is_json() -> None:
    assert encode_json(DESCRIPTION).startswith(b'{"openapi":"3.1.0"')
