"""What a FETCH and an ACK cost does not grow with what lies in the mailbox."""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from functools import partial

import pytest

from mq9_broker._generated.commands import MsgAck, MsgDelete, MsgFetch
from mq9_broker.engine import EngineLimits
from mq9_broker.engine.cleaning import CLEANING_STEPS
from mq9_broker.engine.commands import SendOptions
from mq9_broker.store import MemoryStore

from .steps import CountingStore, lines_of
from .support import BOX, Bench

FEW, MANY = 300, 30_000
HOUR_MS = 3_600_000


def send(bench: Bench, count: int, lane: int, options: SendOptions | None = None) -> None:
    for start in range(0, count, 1000):
        bench.apply(*[(BOX.encode(), lane, b"", b"x", options)] * min(1000, count - start))


def send_singly(bench: Bench, count: int, lane: int, options: SendOptions | None = None) -> None:
    for _ in range(count):
        bench.apply((BOX.encode(), lane, b"", b"x", options))


def waiting(bench: Bench, count: int, lane: int) -> None:
    send(bench, count, lane)


def waiting_singly(bench: Bench, count: int, lane: int) -> None:
    send_singly(bench, count, lane)


def acknowledged(bench: Bench, count: int, lane: int) -> None:
    send(bench, count, lane)
    for start in range(0, count, 1000):
        bench.ack(*range(start, min(count, start + 1000)))


def acknowledged_backwards(bench: Bench, count: int, lane: int) -> None:
    send(bench, count, lane)
    for start in reversed(range(0, count, 1000)):
        bench.ack(*range(start, min(count, start + 1000)))


def acknowledged_but_the_first(bench: Bench, count: int, lane: int) -> None:
    send(bench, count, lane)
    for start in range(0, count, 1000):
        bench.ack(*range(max(1, start), min(count, start + 1000)))


def acknowledged_every_second_the_others_deleted(bench: Bench, count: int, lane: int) -> None:
    send(bench, count, lane)
    for start in range(0, count, 2000):
        bench.ack(*range(max(2, start), min(count, start + 2000), 2))
    for start in range(0, count, 1000):
        bench.apply(*[MsgDelete(BOX.encode(), n) for n in range(start + 1, min(count, start + 1000), 2)])
    bench.ack(*range(count - 10, count))
    # A FETCH pays once for confirmed intervals that became neighbours.
    bench.fetch(num_msgs=20)


def leased(bench: Bench, count: int, lane: int) -> None:
    send(bench, count, lane)
    for _ in range(0, count, 1000):
        bench.lease(num_msgs=1000, lease_ms=10 * HOUR_MS)


def leased_singly(bench: Bench, count: int, lane: int) -> None:
    send(bench, count, lane)
    for _ in range(count):
        bench.lease(num_msgs=1, lease_ms=10 * HOUR_MS)


def given_back_with_delay(bench: Bench, count: int, lane: int) -> None:
    send(bench, count, lane)
    for start in range(0, count, 1000):
        bench.lease(num_msgs=1000, lease_ms=HOUR_MS)
        bench.nack(*range(start, min(count, start + 1000)), delay_ms=10 * HOUR_MS)


def leased_and_acknowledged(bench: Bench, count: int, lane: int) -> None:
    send(bench, count, lane)
    for _ in range(0, count, 1000):
        bench.ack(*bench.lease(num_msgs=1000))


def expired(bench: Bench, count: int, lane: int) -> None:
    send(bench, count, lane, SendOptions(ttl_s=1))
    bench.now += 2_000
    bench.settle()


def expired_on_lease(bench: Bench, count: int, lane: int) -> None:
    send(bench, count, lane, SendOptions(ttl_s=1))
    for _ in range(0, count, 1000):
        bench.lease(num_msgs=1000, lease_ms=1500)
    bench.now += 2_000
    bench.settle()


def deleted(bench: Bench, count: int, lane: int) -> None:
    send(bench, count, lane)
    for start in range(0, count, 1000):
        bench.apply(*[MsgDelete(BOX.encode(), n) for n in range(start, min(count, start + 1000))])


def replaced_by_key(bench: Bench, count: int, lane: int) -> None:
    send(bench, count, lane, SendOptions(key="k"))


def delayed(bench: Bench, count: int, lane: int) -> None:
    send(bench, count, lane, SendOptions(delay_s=100_000))


def gone_redeliveries(bench: Bench, count: int, lane: int) -> None:
    """Lease over, then deleted, behind one that is still there."""
    leased_for(bench, count, lane, 1000)
    bench.pass_ms(1000)
    for start in range(1, count, 1000):
        bench.apply(*[MsgDelete(BOX.encode(), n) for n in range(start, min(count, start + 1000))])


def leased_for(bench: Bench, count: int, lane: int, lease_ms: int) -> None:
    send(bench, count, lane)
    for _ in range(0, count, 1000):
        bench.lease(num_msgs=1000, lease_ms=lease_ms)


SCENES: list[Callable[[Bench, int, int], None]] = [
    waiting,
    waiting_singly,
    acknowledged,
    acknowledged_backwards,
    acknowledged_but_the_first,
    acknowledged_every_second_the_others_deleted,
    leased,
    leased_singly,
    given_back_with_delay,
    leased_and_acknowledged,
    expired,
    expired_on_lease,
    deleted,
    replaced_by_key,
    delayed,
    gone_redeliveries,
]


def costs(scene: Callable[[Bench, int, int], None], count: int, lane: int) -> list[list[int]]:
    """What it costs after ``count`` messages of the scene: without a lease, and leased."""
    store = CountingStore(MemoryStore())
    bench = Bench(store)
    bench.create()
    bench.fetch(deliver="earliest")
    scene(bench, count, lane)
    send(bench, 20, 2)
    return [in_a_copy(partial(cost, bench, store, leased)) for leased in (False, True)]


def in_a_copy(call: Callable[[], list[int]]) -> list[int]:
    """What a call returns in a copy of this process: what it changes, it does not change here."""
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the copy goes on without other threads, and needs none
        process = os.fork()
    if process == 0:
        code = 1
        try:
            os.write(write_end, json.dumps(call()).encode())
            code = 0
        except BaseException:  # nobody above would show it
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as result:
        data = result.read()
    assert os.waitpid(process, 0)[1] == 0, "the error is on stderr"
    returned: list[int] = json.loads(data)
    return returned


def cost(bench: Bench, store: CountingStore, leased: bool) -> list[int]:
    """Steps of a stateless FETCH, the group's FETCH and the ACK."""
    box = BOX.encode()
    steps = []
    batch: list[int] = []

    def fetch(command: MsgFetch) -> Callable[[], object]:
        def call() -> None:
            if leased:
                effect = bench.engine.apply(bench.now, [command]).results[0][1][-1]
                batch[:] = effect.msg_ids  # type: ignore[union-attr]
            else:
                batch[:] = bench.engine.read_fetch(bench.now, command).msg_ids

        return call

    calls = [
        fetch(MsgFetch(box, "", "earliest", num_msgs=15)) if not leased else lambda: None,
        fetch(MsgFetch(box, "g", num_msgs=15, lease_ms=HOUR_MS if leased else 0)),
        lambda: bench.engine.apply(bench.now, [MsgAck(box, "g", None, tuple(batch))]),
        fetch(MsgFetch(box, "g", num_msgs=5, lease_ms=HOUR_MS if leased else 0)),
    ]
    for call in calls:
        before = store.accesses
        lines = lines_of(call)
        steps.append(lines + 10 * (store.accesses - before))
    assert batch, "the scene leaves something to deliver"
    return steps


@pytest.mark.parametrize("lane", [2, 0], ids=["same lane", "higher lane"])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_cost_does_not_grow(
    scene: Callable[[Bench, int, int], None], lane: int, subtests: pytest.Subtests
) -> None:
    pairs = zip(costs(scene, FEW, lane), costs(scene, MANY, lane), strict=True)
    for name, (few, many) in zip(("no lease", "leased"), pairs, strict=True):
        with subtests.test(name):
            for before, after in zip(few, many, strict=True):
                # The count of messages is 100 times as large. A segment more or less may have to be opened.
                assert after <= 1.5 * before + 700, f"{few} steps became {many}"


@pytest.mark.parametrize("groups", [1, 500])
def test_send_costs_nothing_per_group(groups: int) -> None:
    store = CountingStore(MemoryStore())
    bench = Bench(store)
    bench.create()
    for number in range(groups):
        bench.lease(f"g{number}")
    before = store.accesses
    lines = lines_of(lambda: bench.send("x"))
    assert lines + 10 * (store.accesses - before) < 400


def test_cleaning_goes_in_bounded_steps() -> None:
    bench = Bench(MemoryStore())
    bench.create()
    send(bench, 4 * CLEANING_STEPS, 2, SendOptions(ttl_s=1))
    bench.now += 2_000
    bench.apply()
    left = sum(bench.engine._state.mailboxes[BOX.encode()].live)
    assert 2 * CLEANING_STEPS < left < 4 * CLEANING_STEPS
    assert bench.info()["messages"]["normal"] == 0
    assert bench.fetch("", deliver="earliest") == []
    bench.settle()
    assert sum(bench.engine._state.mailboxes[BOX.encode()].live) == 0


def test_cleaning_of_scattered_messages_stops_sooner() -> None:
    bench = Bench(MemoryStore())
    bench.create()
    for _ in range(CLEANING_STEPS):
        bench.apply(*[(BOX.encode(), 2, b"", b"x", SendOptions(ttl_s=ttl)) for ttl in (1, 9, 9)])
    bench.now += 2_000
    bench.apply()
    left = sum(bench.engine._state.mailboxes[BOX.encode()].live)
    assert CLEANING_STEPS // 32 < 3 * CLEANING_STEPS - left < CLEANING_STEPS // 8
    bench.settle()
    assert sum(bench.engine._state.mailboxes[BOX.encode()].live) == 2 * CLEANING_STEPS


def test_opening_a_store_reads_next_to_nothing() -> None:
    memory = MemoryStore()
    bench = Bench(memory)
    bench.create()
    send(bench, MANY, 2, SendOptions(ttl_s=9999))
    bench.lease(num_msgs=1000, lease_ms=HOUR_MS)
    store = CountingStore(memory)
    again = Bench(store)
    again.now = bench.now
    assert store.accesses < 10
    assert again.lease(num_msgs=5) == list(range(1000, 1005))
    assert store.accesses < 60


def test_mailbox_full_costs_the_same_whatever_stands_in_front() -> None:
    costs = []
    for count in (FEW, MANY):
        store = CountingStore(MemoryStore())
        bench = Bench(store, EngineLimits(max_messages=count))
        bench.create()
        bench.fetch(deliver="earliest")
        send(bench, count, 2)
        assert b"mailbox_full" in bench.apply((BOX.encode(), 2, b"", b"x", None))[0]
        bench.ack(count - 1)
        before = store.accesses
        lines = lines_of(partial(bench.send, "x"))
        costs.append(lines + 10 * (store.accesses - before))
    assert costs[1] <= 1.5 * costs[0] + 700
