"""Every key of a store is a record that JSON carries, and back; and what the engine writes holds together."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from mq9_broker.engine import Engine, EngineLimits
from mq9_broker.engine.checking import check_store
from mq9_broker.engine.commands import decode_command
from mq9_broker.engine.records import KINDS, RecordError, decode_record, encode_record
from mq9_broker.store import Batch, MemoryStore

from .random_commands import random_calls
from .replay import LIMITS, everything
from .support import Bench


def random_store(seed: int, total: int, limits: EngineLimits = LIMITS) -> MemoryStore:
    store = MemoryStore()
    engine = Engine(store, limits)
    for now, forms in random_calls(seed=seed, total=total):
        engine.apply(now, [decode_command(form) for form in forms])
    return store


def test_records_become_the_very_same_bytes() -> None:
    kinds = set()
    for seed in range(5):
        bench = Bench(random_store(seed, 2_000))
        bench.now = bench.engine.time_ms
        bench.create("full", max_deliveries=1, dead_letter="letters", ttl=1000)
        bench.send("x", "full", headers={"A": ["b"]}, tags=("t",))
        bench.lease("g", "full")
        bench.nack(0, name="full")
        bench.send("later", "full", delay_s=100)
        bench.send("once", "full", dedup_id="d", key="k", ttl_s=100)
        bench.lease("g", "full")
        bench.register("a", "full", ttl=10)
        for key, value in everything(bench.store):
            record = decode_record(key, value)
            kinds.add(record["kind"])
            assert encode_record(msgspec.json.decode(msgspec.json.encode(record))) == (key, value)
    assert kinds == KINDS


@pytest.mark.parametrize("limits", [LIMITS, EngineLimits()], ids=["limited", "unlimited"])
@pytest.mark.parametrize("seed", range(10))
def test_what_the_engine_writes_holds_together(seed: int, limits: EngineLimits) -> None:
    store = MemoryStore()
    engine = Engine(store, limits)
    calls = random_calls(seed=100 + seed, total=3_000)
    for number, (now, forms) in enumerate(calls):
        engine.apply(now, [decode_command(form) for form in forms])
        if number % 50 == 0 or number == len(calls) - 1:
            assert list(check_store(store)) == [], f"after call {number}"


def test_damage_is_found() -> None:
    """Of any key, taken away or put in another's place, the checker says so, but for those that may be."""
    store = random_store(7, 3_000)
    assert list(check_store(store)) == []
    content = everything(store)
    # What nothing else tells of: the registry's bodies, time, progress of groups, ids that come again.
    silent = {
        "time",
        "redelivery",
        "confirmed",
        "evictable",
        "outbox",
        "agent",
        "next_incarnation",
        "gone",
        "counts",
    }
    missed: list[Any] = []
    rnd = random.Random(1)
    for key, value in rnd.sample(content, min(400, len(content))):
        kind = decode_record(key, value)["kind"]
        store.write(Batch((), [(key, None)]))
        if not list(check_store(store)) and kind not in silent:
            missed.append(decode_record(key, value))
        store.write(Batch((), [(key, value)]))
    assert missed == []
    assert list(check_store(store)) == []


def test_unknown_keys_are_found() -> None:
    store = random_store(8, 200)
    store.write(Batch((), [(b"Zx", b""), (b"M" + bytes(8) + b"?", b""), (b"T123", b"")]))
    problems = list(check_store(store))
    assert sum("its kind is unknown" in problem for problem in problems) == 2
    assert sum("5431323" in problem for problem in problems) == 1


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"kind": "nothing"},
        {"kind": "time"},
        {"kind": "time", "ms": -1},
        {"kind": "time", "ms": "1"},
        {"kind": "segment", "incarnation": 1, "lane": 3, "first_id": 1},
        {"kind": "redelivery", "incarnation": 1, "group_number": 1, "lane": 7, "msg_id": 1, "deliveries": 1},
    ],
)
def test_what_is_no_record_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(RecordError):
        encode_record(record)


def test_counts_that_are_wrong_are_found() -> None:
    store = random_store(9, 200)
    store.write(Batch((), [(b"\x00counts", bytes(16))]))
    assert any("0 and 0 are counted" in problem for problem in check_store(store))
