"""Agents: register, unregister, report, ttl, the list of all."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from mq9_broker._generated.commands import AgentDiscover
from mq9_broker.engine import Agent, EngineLimits
from mq9_broker.engine.effects import AgentChanged, AgentRemoved

from .support import START_MS, Bench, EngineError, contents

SECOND = START_MS // 1000


@pytest.fixture
def bench(new_bench: Callable[..., Bench]) -> Bench:
    return new_bench()


def names(bench: Bench, **fields: object) -> list[str]:
    return [agent["name"] for agent in bench.discover(**fields)["agents"]]


def add(bench: Bench, name: str, mailbox: str = "", ttl: int = 0) -> None:
    bench.register(name, mailbox, ttl, msgspec.json.encode({"name": name, "mailbox": mailbox}))


def test_the_body_comes_back_untouched(bench: Bench) -> None:
    body = b'{"name":"a", "n": 1.00, "big":123456789012345678901, "x":null ,"o":{"b":1,"a":2}}'
    bench.register("a", card=body)
    assert bench.effects == [AgentChanged("a")]
    reply = bench.engine.read(bench.now, AgentDiscover())
    assert body in reply
    assert bench.discover()["meta"] == [{"last_seen": SECOND, "registered_at": SECOND}]
    assert bench.engine.agent("a") == Agent("a", "", body, SECOND, SECOND, None)
    assert bench.engine.agent("b") is None


def test_register_replaces_body_ttl_status_and_registered_at(bench: Bench) -> None:
    bench.register("a", "m1", 10, b'{"v":1}')
    bench.report("a", status=b'{"load":1}')
    bench.now += 5_000
    bench.register("a", "m2", 0, b'{"v":2}')
    assert bench.discover()["agents"] == [{"v": 2}]
    assert bench.discover()["meta"] == [{"last_seen": SECOND + 5, "registered_at": SECOND + 5}]
    assert bench.pass_ms(100_000) == []
    with pytest.raises(EngineError, match="agent_not_found"):
        bench.report(mailbox="m1")
    bench.report(mailbox="m2")


def test_report_keeps_alive_and_sets_status(bench: Bench) -> None:
    add(bench, "a", ttl=10)
    bench.now += 9_999
    bench.report("a", status=b'{"load":0.50,"name2":"x"}')
    assert bench.effects == []
    assert bench.discover()["meta"] == [
        {"last_seen": SECOND + 9, "registered_at": SECOND, "status": {"load": 0.5, "name2": "x"}}
    ]
    assert b'{"load":0.50,"name2":"x"}' in bench.engine.read(bench.now, AgentDiscover())
    bench.pass_ms(9_999)
    assert names(bench) == ["a"]
    bench.pass_ms(1)
    assert names(bench) == []


def test_an_agent_is_removed_at_its_deadline(bench: Bench) -> None:
    add(bench, "a", "m", ttl=10)
    add(bench, "b")
    assert bench.pass_ms(9_999) == []
    assert bench.pass_ms(1) == [AgentRemoved("a")]
    assert names(bench) == ["b"]
    for name, mailbox in (("a", ""), ("", "m")):
        with pytest.raises(EngineError) as caught:
            bench.report(name, mailbox)
        assert (caught.value.code, caught.value.text) == ("agent_not_found", "agent not found")
    add(bench, "a", "m", ttl=10)
    bench.report(mailbox="m")
    assert names(bench) == ["a", "b"]


def test_a_report_at_the_deadline_is_too_late(bench: Bench) -> None:
    add(bench, "a", ttl=1)
    bench.now += 1000
    with pytest.raises(EngineError, match="agent_not_found"):
        bench.report("a")


def test_unregister_by_name_or_mailbox(bench: Bench) -> None:
    add(bench, "a", "m")
    add(bench, "b", "m")
    add(bench, "c", "mm")
    bench.unregister("nobody")
    bench.unregister(mailbox="nowhere")
    assert bench.effects == []
    bench.unregister("a", "mm")
    assert bench.effects == [AgentRemoved("a")]
    add(bench, "d", "m")
    bench.unregister(mailbox="m")
    assert bench.effects == [AgentRemoved("b"), AgentRemoved("d")]
    assert names(bench) == ["c"]


def test_report_by_mailbox_concerns_every_agent_with_it(bench: Bench) -> None:
    add(bench, "a", "m", ttl=10)
    add(bench, "b", "m", ttl=10)
    add(bench, "c", "other", ttl=10)
    bench.now += 5_000
    bench.report(mailbox="m", status=b'{"s":1}')
    bench.pass_ms(5_000)
    assert names(bench) == ["a", "b"]
    assert [meta["status"] for meta in bench.discover()["meta"]] == [{"s": 1}] * 2


def test_nothing_is_left_of_removed_agents(bench: Bench) -> None:
    bench.apply()
    before = set(contents(bench.store))
    for number in range(20):
        add(bench, f"a{number}", f"m{number % 3}", ttl=number % 4)
        bench.now += 100
        bench.report(f"a{number}")
    bench.now += 60_000
    bench.apply()
    for number in range(0, 20, 4):
        bench.unregister(f"a{number}")
    assert set(contents(bench.store)) == before
    assert bench.engine.next_due() is None


# The list


def test_the_list_is_by_name_in_byte_order(bench: Bench) -> None:
    for name in ("b", "ä", "a'\"%", "Z", "aa", "日本", "a" * 1024):
        add(bench, name)
    assert names(bench, limit=100) == ["Z", "a'\"%", "aa", "a" * 1024, "b", "ä", "日本"]
    assert [agent.name for agent in bench.engine.agents()] == names(bench, limit=100)


def test_pages(bench: Bench) -> None:
    for number in range(7):
        add(bench, f"n{number}")
    assert names(bench, limit=3, page=1) == ["n0", "n1", "n2"]
    assert names(bench, limit=3, page=3) == ["n6"]
    assert names(bench, limit=3, page=4) == []
    assert names(bench, limit=3, page=1_000_000) == []


def test_a_cursor_shows_every_agent_that_stays_once(bench: Bench) -> None:
    for number in range(10):
        add(bench, f"n{number}")
    seen: list[str] = []
    cursor = ""
    while True:
        reply = bench.discover(limit=3, page=9 if cursor else 1, cursor=cursor)
        seen += [agent["name"] for agent in reply["agents"]]
        assert len(reply["agents"]) == len(reply["meta"])
        if "cursor" not in reply:
            break
        cursor = reply["cursor"]
        if len(seen) == 3:
            bench.unregister("n2")
            bench.unregister("n4")
            add(bench, "n1x")
            add(bench, "n5x")
    assert seen == ["n0", "n1", "n2", "n3", "n5", "n5x", "n6", "n7", "n8", "n9"]


def test_no_cursor_when_there_is_no_more(bench: Bench) -> None:
    assert "cursor" not in bench.discover()
    for number in range(3):
        add(bench, f"n{number}")
    assert "cursor" not in bench.discover(limit=3)
    assert "cursor" in bench.discover(limit=2)


@pytest.mark.parametrize("cursor", ["x", "n!", "n=", "nä", "n" + "gA=="])
def test_a_cursor_of_somebody_else_is_invalid(bench: Bench, cursor: str) -> None:
    add(bench, "a")
    with pytest.raises(EngineError) as caught:
        bench.discover(cursor=cursor)
    assert caught.value.code == "invalid_argument"
    assert caught.value.text.startswith("cursor: ")


def test_a_page_ends_at_max_reply(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_reply=3_000))
    for number in range(20):
        bench.register(f"n{number:02}", card=msgspec.json.encode({"name": f"n{number:02}", "x": "y" * 400}))
    seen: list[str] = []
    cursor = ""
    while True:
        command = AgentDiscover(limit=100, cursor=cursor)
        assert len(bench.engine.read(bench.now, command)) <= 3_000
        reply = bench.read(command)
        seen += [agent["name"] for agent in reply["agents"]]
        cursor = reply.get("cursor", "")
        if not cursor:
            break
        assert len(reply["agents"]) >= 3
    assert seen == [f"n{number:02}" for number in range(20)]


def test_a_page_has_one_agent_at_least(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_reply=100))
    for name in ("a", "b"):
        bench.register(name, card=msgspec.json.encode({"name": name, "x": "y" * 400}))
    first = bench.discover()
    assert [agent["name"] for agent in first["agents"]] == ["a"]
    assert [agent["name"] for agent in bench.discover(cursor=first["cursor"])["agents"]] == ["b"]
