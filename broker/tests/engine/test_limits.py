"""Bounds of the whole: mailboxes, agents, the size of a message."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mq9_broker.engine import EngineLimits
from mq9_broker.engine.keys import COUNTS
from mq9_broker.store import Batch

from .support import BOX, Bench, EngineError


def test_mailboxes_are_bounded(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_mailboxes=2))
    bench.create("a")
    bench.create("b", ttl=10)
    with pytest.raises(EngineError, match="there are 2 mailboxes already") as refused:
        bench.create("c")
    assert refused.value.code == "unavailable"
    with pytest.raises(EngineError, match="already exists"):
        bench.create("a")
    bench.drop("a")
    bench.create("c")
    with pytest.raises(EngineError, match="there are 2 mailboxes"):
        bench.create("d")
    bench.pass_ms(10_000)  # the ttl of `b`
    bench.create("d")
    with pytest.raises(EngineError, match="there are 2 mailboxes"):
        bench.create("b")


def test_agents_are_bounded(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_agents=2))
    bench.register("a")
    bench.register("b", ttl=10)
    with pytest.raises(EngineError, match="there are 2 agents already") as refused:
        bench.register("c")
    assert refused.value.code == "unavailable"
    bench.register("a")  # replaces
    bench.unregister("a")
    bench.unregister("a")
    bench.register("c")
    with pytest.raises(EngineError, match="there are 2 agents"):
        bench.register("d")
    bench.pass_ms(10_000)
    bench.register("d")
    with pytest.raises(EngineError, match="there are 2 agents"):
        bench.register("b")


def test_a_store_without_counts_is_counted(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench()
    for name in ("a", "b", "c"):
        bench.create(name)
        bench.register(name)
    bench.register("d")
    bench.store.write(Batch((), ((COUNTS, None),)))
    limited = Bench(bench.store, EngineLimits(max_mailboxes=4, max_agents=4), cold=bench.cold)
    with pytest.raises(EngineError, match="there are 4 agents"):
        limited.register("e")
    limited.create("d")
    with pytest.raises(EngineError, match="there are 4 mailboxes"):
        limited.create("e")


def test_counts_of_a_failed_call_are_forgotten(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_mailboxes=1))
    state = bench.engine._state
    state.count(mailboxes=1)
    state.forget()
    assert state.counts == (0, 0)
    bench.create("a")


def test_messages_are_bounded(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_message=100))
    bench.create(BOX, dead_letter="dead", max_deliveries=1)
    bench.create("dead")
    assert bench.send("x" * 100) == 0
    with pytest.raises(EngineError, match="may have 100 bytes with its headers, this one has 101") as refused:
        bench.send("x" * 101)
    assert refused.value.code == "payload_too_large"
    with pytest.raises(EngineError, match="payload too large"):
        bench.send("x" * 95, headers={"a": ["b"]}, key="k")
    with pytest.raises(EngineError, match="payload too large"):
        bench.send("x" * 101, name="none")
    # Its copy has some headers more, and gets to the dead-letter mailbox all the same.
    assert bench.lease(deliver="earliest", lease_ms=1000) == [0]
    assert bench.deliver_dead_letters(bench.pass_ms(1000)) == [{"error": "", "msg_id": 0}]
