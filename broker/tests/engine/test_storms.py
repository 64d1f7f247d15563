"""Much that falls due at once costs as much as it would one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mq9_broker._generated.commands import AgentRegister, MailboxCreate, MsgFetch
from mq9_broker.engine.commands import SendOptions
from mq9_broker.store import MemoryStore

from .steps import lines_of
from .support import BOX, Bench

FEW, MANY = 50, 500
BOX_BYTES = BOX.encode()


def delayed(bench: Bench, count: int) -> None:
    bench.apply(*[(BOX_BYTES, 2, b"", b"x", SendOptions(delay_s=10))] * count)


def leased(bench: Bench, count: int) -> None:
    bench.apply(*[(BOX_BYTES, 2, b"", b"x", None)] * count)
    lease = MsgFetch(BOX_BYTES, "g", "earliest", num_msgs=1, lease_ms=10_000)
    bench.apply(*[lease] * count)


def mailboxes(bench: Bench, count: int) -> None:
    bench.apply(*[MailboxCreate(b"m%d" % number, ttl=10) for number in range(count)])


def agents(bench: Bench, count: int) -> None:
    bench.apply(*[AgentRegister(f"a{number}", card=b"{}", ttl=10) for number in range(count)])


def expiring(bench: Bench, count: int) -> None:
    bench.apply(*[MailboxCreate(b"m%d" % number) for number in range(count)])
    bench.apply(*[(b"m%d" % number, 2, b"", b"x", SendOptions(ttl_s=10)) for number in range(count)])


def remembered(bench: Bench, count: int) -> None:
    bench.apply(*[(BOX_BYTES, 2, b"", b"x", SendOptions(dedup_id=str(number))) for number in range(count)])


SCENES: list[Callable[[Bench, int], None]] = [delayed, leased, mailboxes, agents, expiring, remembered]


def lines_when_due(scene: Callable[[Bench, int], None], count: int) -> int:
    bench = Bench(MemoryStore())
    bench.create()
    scene(bench, count)
    bench.now += 200_000
    return lines_of(bench.settle)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_many_timers_at_once_cost_as_much_as_one_by_one(scene: Callable[[Bench, int], None]) -> None:
    few, many = lines_when_due(scene, FEW), lines_when_due(scene, MANY)
    assert many <= 1.3 * (MANY / FEW) * few, f"{few} lines became {many}"
