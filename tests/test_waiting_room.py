"""Those who wait for an answer of the core."""

from __future__ import annotations

import pytest

from retinue.core.messages import Outcome, Reason, Result
from retinue.waiting import Answer, WaitingRoom

DONE = Result(Outcome.COMMITTED, Reason.OK, 1)


def test_an_answer_that_fails_keeps_nobody_else_from_theirs(caplog: pytest.LogCaptureFixture) -> None:
    room = WaitingRoom()
    heard: list[Answer] = []

    def fail(_: Answer) -> None:
        raise RuntimeError("this client's fault")

    tokens = [room.enter(heard.append), room.enter(fail), room.enter(heard.append)]
    for token in tokens:
        room.answer(token, DONE)
    assert heard == [DONE, DONE]
    assert len(room) == 0
    (record,) = caplog.records
    assert "this client's fault" in caplog.text
    assert record.message == "an answer could not be given"


def test_whoever_is_answered_is_answered_once() -> None:
    room = WaitingRoom()
    heard: list[Answer] = []
    token = room.enter(heard.append, deadline=10)
    room.answer(token, DONE)
    room.answer(token, DONE)
    room.expire(20)
    room.close()
    assert heard == [DONE]
