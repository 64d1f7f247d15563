"""The short form of the crash test; see storm.py."""

from pathlib import Path

import pytest

from .history import History, Sent
from .storm import RETRIES_END, may_be_sent_again, storm


@pytest.mark.timeout(300)
async def test_a_broker_killed_at_random_moments_keeps_its_promises(tmp_path: Path) -> None:
    assert await storm(tmp_path / "data", kills=8, per_generation=4, seed=1) == []


def test_nothing_is_sent_again_when_its_dedup_id_may_be_forgotten() -> None:
    assert RETRIES_END < 120
    assert may_be_sent_again(sent("a", 1, has_dedup_id=True), 10.0 + RETRIES_END - 1)
    assert not may_be_sent_again(sent("a", 1, has_dedup_id=True), 10.0 + RETRIES_END)
    assert not may_be_sent_again(sent("a", 1), 10.0)


def message(msg_id: int, payload: str) -> dict[str, object]:
    import base64

    return {"msg_id": msg_id, "payload": base64.b64encode(payload.encode()).decode(), "priority": "normal"}


def sent(name: str, number: int, **more: object) -> Sent:
    fields = {
        "sender": 0,
        "mailbox": "m",
        "lane": "normal",
        "has_dedup_id": False,
        "delay": 0,
        "sent_at": 10.0,
    }
    return Sent(name=name, number=number, **{**fields, **more})  # type: ignore[arg-type]


def test_the_judge_sees_what_is_wrong() -> None:
    history = History()
    for item in (
        sent("lost", 1, replies=[0]),
        sent("twice", 2, replies=[1], has_dedup_id=True),
        sent("early", 3, delay=5, replies=[-1]),
        sent("late", 4, replies=[9]),
        sent("later", 5, replies=[8]),
    ):
        history.sent[item.name] = item
    history.delivered("m", message(3, "early"), 11, 12, 1)
    history.delivered("m", message(9, "late"), 11, 12, 10)
    history.delivered("m", message(9, "late"), 13, 14, 10)
    history.boxes["m"].acknowledged[9] = 15
    history.delivered("m", message(9, "late"), 31, 32, 10)
    history.boxes["m"].given_back[9].append((33, 34, 5))
    history.delivered("m", message(9, "late"), 35, 36, 10)
    history.agents.add("a")
    messages = [
        message(i, n) for i, n in ((1, "twice"), (2, "twice"), (3, "early"), (8, "later"), (9, "late"))
    ]
    problems = "\n".join(history.judge({"m": messages}, set()))
    for expected in (
        "lost: acknowledged, and lost",
        "twice: 2 times",
        "(early): delivered 3.000 s too early",
        "(late): it was leased for 7.000 s more",
        "(late): it came back after its ACK was answered",
        "(late): given back with a delay, it came 2.000 s early",
        "later: before what its sender sent before",
        "later: never delivered to the group",
        "agent a is lost",
    ):
        assert expected in problems


def test_the_judge_reckons_in_milliseconds_as_the_broker_does() -> None:
    history = History()
    history.sent["x"] = sent("x", 1, delay=5, replies=[-1])
    history.sent["x"].sent_at = 10.0009
    for got_at, problems in ((15.0001, 0), (14.9999, 1)):
        history.delivered("m", message(1, "x"), 14.5, got_at, 0)
        assert len(history.problems) == problems
