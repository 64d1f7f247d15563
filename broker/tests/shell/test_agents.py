"""The registry through the shell: what DISCOVER finds, in which order, page by page."""

import json
from typing import Any

import pytest

from .support import Broker


def names(reply: Any) -> list[str]:
    return [agent["name"] for agent in reply["agents"]]


def discover(broker: Broker, **options: Any) -> list[str]:
    return names(broker.ok("AGENT.DISCOVER", options))


async def test_what_was_registered_is_found_at_once_in_the_same_read_too() -> None:
    broker = Broker()
    skills = b'[{"d":"Translates \\u4e2d\\u6587 text"}]'
    card = b'{"name":"t","z":1.50,"big":9007199254740993,"n":null,"skills":%b}' % skills
    broker.ok("AGENT.REGISTER", card)
    reply = broker.ok("AGENT.DISCOVER", {"text": "TRANSLATES"})
    assert reply["agents"] == [json.loads(card)]
    assert reply["meta"][0].keys() == {"score", "last_seen", "registered_at"}
    assert discover(broker, text="中文") == ["t"]
    assert discover(broker, text="skills") == []
    assert "score" not in broker.ok("AGENT.DISCOVER")["meta"][0]


async def test_the_body_comes_back_byte_for_byte() -> None:
    broker = Broker()
    raw: list[bytes] = []
    card = b'{ "name" : "t", "a":1.0, "a":1e3, "b":0.10, "c":"\\u00e9\\/" , "d":1e999}'
    broker.ok("AGENT.REGISTER", card)

    class Raw:
        is_closed = False

        def listens(self, subject: bytes) -> bool:
            return True

        def send_replies(self, replies: list[tuple[bytes, bytes]]) -> None:
            raw.extend(reply for _, reply in replies)

    for body in (b"{}", b'{"text":"t"}'):
        broker.shell.handle(Raw(), [(b"$mq9.AI.AGENT.DISCOVER", b"r", None, body)])
    assert len(raw) == 2
    assert all(card in reply for reply in raw)


async def test_replacing_unregistering_and_expiring_reach_the_index() -> None:
    broker = Broker()
    broker.ok("AGENT.REGISTER", {"name": "a", "mailbox": "m", "text": "one"})
    broker.ok("AGENT.REGISTER", {"name": "b", "mailbox": "m", "text": "one", "ttl": 10})
    assert discover(broker, text="one") == ["a", "b"]
    broker.ok("AGENT.REGISTER", {"name": "a", "mailbox": "m", "text": "two"})
    assert discover(broker, text="one") == ["b"]
    broker.shell.advance_clock(9_000)
    broker.ok("AGENT.REPORT", {"mailbox": "m", "load": 0.50})
    broker.shell.advance_clock(9_000)
    assert discover(broker, text="one") == ["b"]
    broker.shell.advance_clock(1_000)
    assert discover(broker, text="one") == []
    assert broker.ask("AGENT.REPORT", {"name": "b"})["code"] == "agent_not_found"
    broker.ok("AGENT.UNREGISTER", {"mailbox": "m"})
    assert discover(broker, text="two") == []
    assert discover(broker) == []


async def test_a_status_is_the_report_without_the_agents_names() -> None:
    broker = Broker()
    broker.ok("AGENT.REGISTER", {"name": "a"})
    broker.ok("AGENT.REPORT", b'{"name":"a","mailbox":"m","load":0.50,"big":9007199254740993,"name":"a"}')
    assert broker.ok("AGENT.DISCOVER")["meta"][0]["status"] == {"load": 0.5, "big": 9007199254740993}
    assert broker.ok("AGENT.DISCOVER", {"text": "a"})["meta"][0]["status"] == {
        "load": 0.5,
        "big": 9007199254740993,
    }
    broker.ok("AGENT.REPORT", {"name": "a"})
    assert broker.ok("AGENT.DISCOVER")["meta"][0]["status"] == {}


@pytest.mark.parametrize("text", [None, "word"])
@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_pages_and_cursors_show_each_agent_once(text: str | None, limit: int) -> None:
    broker = Broker()
    everybody = [f"n{number:02}" for number in range(25)]
    for name in reversed(everybody):
        broker.ok("AGENT.REGISTER", {"name": name, "text": "word"})
    assert discover(broker, text=text, limit=100) == everybody
    paged = [name for page in range(1, 27) for name in discover(broker, text=text, limit=limit, page=page)]
    assert paged == everybody
    assert discover(broker, text=text, limit=limit, page=1_000_000) == []
    seen: list[str] = []
    cursor = ""
    for step in range(100):
        reply = broker.ok(
            "AGENT.DISCOVER", {"text": text, "limit": limit, "cursor": cursor, "page": 7 if cursor else 1}
        )
        seen += names(reply)
        if not (cursor := reply.get("cursor", "")):
            break
        # Others come and go meanwhile.
        broker.ok("AGENT.UNREGISTER", {"name": f"other{step}"})
    assert seen == everybody


async def test_a_listing_goes_on_where_it_was_whoever_left() -> None:
    broker = Broker()
    for name in "abcdef":
        broker.ok("AGENT.REGISTER", {"name": name})
    first = broker.ok("AGENT.DISCOVER", {"limit": 2})
    broker.ok("AGENT.UNREGISTER", {"name": "a"})
    broker.ok("AGENT.UNREGISTER", {"name": "b"})
    broker.ok("AGENT.REGISTER", {"name": "aa"})
    assert names(broker.ok("AGENT.DISCOVER", {"limit": 10, "cursor": first["cursor"]})) == [
        "c",
        "d",
        "e",
        "f",
    ]


@pytest.mark.parametrize("text", [None, "word"])
async def test_a_page_ends_at_max_reply(text: str | None) -> None:
    broker = Broker()
    for number in range(8):
        broker.ok("AGENT.REGISTER", {"name": f"n{number}", "text": "word", "filler": "x" * 250_000})
    first = broker.ok("AGENT.DISCOVER", {"text": text})
    assert 1 <= len(first["agents"]) < 8
    seen = names(first)
    reply = first
    while "cursor" in reply:
        reply = broker.ok("AGENT.DISCOVER", {"text": text, "cursor": reply["cursor"]})
        seen += names(reply)
    assert seen == [f"n{number}" for number in range(8)]


@pytest.mark.parametrize("cursor", ["x", "é", "e30=", "WzEsMl0=", "bnVsbA==", "~" * 1000])
async def test_a_cursor_that_never_was_is_refused(cursor: str) -> None:
    broker = Broker()
    for options in ({}, {"text": "word"}):
        assert broker.ask("AGENT.DISCOVER", {"cursor": cursor, **options})["code"] == "invalid_argument"


async def test_semantic_is_not_supported_yet() -> None:
    broker = Broker()
    assert (
        broker.ask("AGENT.DISCOVER", {"semantic": "who can help", "text": "x"})["code"]
        == "unsupported_operation"
    )
    assert broker.ok("AGENT.DISCOVER", {"semantic": "", "text": ""})["agents"] == []


async def test_the_index_is_filled_at_the_start() -> None:
    broker = Broker()
    broker.ok("AGENT.REGISTER", {"name": "a", "text": "word"})
    assert discover(Broker(broker.engine), text="word") == ["a"]


@pytest.mark.parametrize(
    "name", ['"', "'; DROP TABLE documents; --", "*", "a b", "é组😀", "\x00", "%", "n" * 1024]
)
async def test_any_name_can_be_registered_found_and_unregistered(name: str) -> None:
    broker = Broker()
    broker.ok("AGENT.REGISTER", {"name": name, "text": "word"})
    assert discover(broker, text="word") == [name]
    assert discover(broker) == [name]
    assert broker.ok("AGENT.DISCOVER", {"text": name})["error"] == ""
    broker.ok("AGENT.REPORT", {"name": name})
    broker.ok("AGENT.UNREGISTER", {"name": name})
    assert discover(broker, text="word") == []
