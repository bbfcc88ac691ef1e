"""Every error once: what is told over HTTP is understood again at the other end, and nothing is left undefined."""

from __future__ import annotations

import pickle

import pytest

from retinue import errors
from retinue.errors import NOT_WRITTEN, UNKNOWN, RetinueError, from_problem

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RetinueError)]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_node_tells_is_the_same_error_again(kind: type[RetinueError]) -> None:
    told = kind("Something is wrong: put it right.", key="k", acks=2).problem()
    understood = from_problem(kind.status, told)
    assert type(understood) is kind
    assert understood.detail == "Something is wrong: put it right."
    assert understood.fields == {"key": "k", "acks": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_fully_defined(kind: type[RetinueError]) -> None:
    assert 400 <= kind.status < 600
    assert kind.title
    assert kind.resp_code.isupper()
    assert kind.exit_code in (1, 2, 3, 4, 6, 7)
    assert kind.outcome in (None, NOT_WRITTEN, UNKNOWN)
    assert kind.__doc__


def test_types_are_distinct() -> None:
    assert len({kind.problem_type() for kind in KINDS}) == len(KINDS)


def test_only_unknown_outcomes_exit_as_unknown() -> None:
    for kind in KINDS:
        assert (kind.exit_code == errors.EXIT_UNKNOWN) == (kind.outcome == UNKNOWN)


def test_problem_says_the_sentence_twice_and_the_outcome() -> None:
    problem = errors.NoQuorum("Two of three followers are gone: start them.", acks=0, required_quorum=3).problem()
    assert problem == {
        "type": "urn:retinue:no-quorum",
        "title": "No quorum",
        "status": 503,
        "detail": "Two of three followers are gone: start them.",
        "error": "Two of three followers are gone: start them.",
        "outcome": "not_written",
        "acks": 0,
        "required_quorum": 3,
    }


def test_retry_hint_is_no_field() -> None:
    assert errors.Overloaded("Wait.").retry_after_s == 1
    patient = errors.Overloaded("Wait.", retry_after_s=7)
    assert (patient.retry_after_s, patient.fields) == (7, {})
    assert errors.BadRequest("No.").retry_after_s is None


def test_an_unknown_type_falls_back_to_the_status() -> None:
    error = from_problem(404, {"title": "Not Found"})
    assert (type(error), error.detail) == (errors.NotFound, "The node answered with HTTP status 404.")
    assert type(from_problem(599, {"error": "no"})) is RetinueError


def test_errors_pass_between_processes() -> None:
    error = pickle.loads(pickle.dumps(errors.NotLeader("Go there.", leader="http://a:1")))
    assert (error.detail, error.fields) == ("Go there.", {"leader": "http://a:1"})
