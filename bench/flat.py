"""What a FETCH and its ACK cost must not depend on what else is in the mailbox.

Each case fills a new mailbox, then one connection runs FETCH + ACK, sending as many messages again after each
round trip (outside the measured times), so that the number of waiting messages stays the same. Messages in
the way lie in the lane of those that are fetched or in the lane before it; they cannot be delivered, and a
FETCH must not pay for walking past them again and again.

A second broker has a mailbox with nothing in the way. Both are measured in turns: a machine that is slower
for a while is slower for both, and only their ratio counts.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from harness import MQ9, Mq9Broker, mq9_request, run_load

GROUP = "bench"
TURNS = 5
CYCLES = 100
"""Of a turn."""
WAITING = 1000
"""Deliverable messages behind those in the way."""
CENTURY_S = 3_000_000_000
HOUR_MS = 3_600_000
LIMIT = 2.0
"""The time of a good run (10th percentile: the median is too much at the mercy of a busy machine) may be this
many times that of the mailbox with nothing in the way, in the median of the turns, before it counts as not
flat: room for cache misses in a mailbox of a million messages, none for work that grows with it."""
KINDS: dict[str, dict[str, object]] = {
    "leased": {"lease_ms": HOUR_MS, "settle": "ack-ids"},
    "plain": {"settle": "ack-last"},
}


@dataclass(frozen=True)
class Mailbox:
    """Where a case puts its messages."""

    broker: Mq9Broker
    address: str

    async def send(self, count: int, *headers: str) -> None:
        options = {"header": "\r\n".join(headers)} if headers else {}
        subject = f"{MQ9}MSG.SEND.{self.address}"
        await run_load(self.broker, "request", subject=subject, total=count, **options)

    async def take(self, count: int, settle: str, **options: object) -> None:
        """FETCH under leases, 1,000 at a time, and settle."""
        fixed = {
            "mailbox": self.address,
            "group": GROUP,
            "connections": 1,
            "batch": 1000,
            "lease_ms": 12 * HOUR_MS,
        }
        await run_load(self.broker, "fetch", total=count, settle=settle, **fixed, **options)

    async def cycles(self, batch: int, kind: str) -> dict[str, float]:
        """The times of one turn."""
        load = await run_load(
            self.broker,
            "fetch",
            mailbox=self.address,
            group=GROUP,
            connections=1,
            batch=batch,
            total=CYCLES * batch,
            refill=True,
            **KINDS[kind],
        )
        await self.send(batch)  # the last batch was not sent again
        return load.figures

    async def delete(self, count: int) -> None:
        subject = f"{MQ9}MSG.DELETE.{self.address}.{{n}}"
        await run_load(self.broker, "request", subject=subject, total=count, size=0)


Preparation = Callable[[Mailbox, int, str], Awaitable[None]]


async def _acknowledged(mailbox: Mailbox, count: int, lane: str) -> None:
    await mailbox.send(count, lane)
    await mailbox.take(count, "ack-ids")


async def _leased(mailbox: Mailbox, count: int, lane: str) -> None:
    await mailbox.send(count, lane)
    await mailbox.take(count, "none")


async def _nacked(mailbox: Mailbox, count: int, lane: str) -> None:
    await mailbox.send(count, lane)
    await mailbox.take(count, "nack", delay_ms=24 * HOUR_MS)


async def _expired(mailbox: Mailbox, count: int, lane: str) -> None:
    await mailbox.send(count, lane, "mq9-ttl: 60")
    await mailbox.broker.advance_clock(61)


async def _deleted(mailbox: Mailbox, count: int, lane: str) -> None:
    await mailbox.send(count, lane)
    await mailbox.delete(count)


async def _delayed(mailbox: Mailbox, count: int, lane: str) -> None:
    await mailbox.send(count, lane, f"mq9-delay: {CENTURY_S}")


async def _replaced(mailbox: Mailbox, count: int, lane: str) -> None:
    """All but one replaced by their key's successor, and that one acknowledged."""
    await mailbox.send(count, lane, "mq9-key: one")
    await mailbox.take(1, "ack-ids")


IN_THE_WAY: dict[str, Preparation] = {
    "acknowledged": _acknowledged,
    "leased": _leased,
    "expired": _expired,
    "deleted": _deleted,
    "delayed": _delayed,
    "nacked with delay": _nacked,
    "replaced by key": _replaced,
}
LANES = {"same lane": "mq9-priority: normal", "lane before": "mq9-priority: critical"}


@dataclass(frozen=True)
class Case:
    """`count` messages in the way, then `waiting` deliverable ones, fetched `batch` at a time."""

    title: str
    batch: int
    waiting: int
    in_the_way: Callable[[Mailbox], Awaitable[None]] | None = None


def _cases(count: int) -> Iterator[Case]:
    for batch, waiting in ((10, 10), (10, WAITING), (10, count), (100, WAITING), (100, count)):
        yield Case(f"{waiting:,} waiting", batch, waiting)
    for what, prepare in IN_THE_WAY.items():
        for where, lane in LANES.items():

            async def fill(mailbox: Mailbox, prepare: Preparation = prepare, lane: str = lane) -> None:
                await prepare(mailbox, count, lane)

            yield Case(f"{count:,} {what} first, {where}", 100, WAITING, fill)


@contextlib.asynccontextmanager
async def _mailbox(broker: Mq9Broker) -> AsyncIterator[Mailbox]:
    """A new mailbox, deleted at the end."""
    client = await broker.connect()
    try:
        address = str((await mq9_request(client, "MAILBOX.CREATE"))["mail_address"])
        yield Mailbox(broker, address)
        await mq9_request(client, f"MAILBOX.DELETE.{address}")
    finally:
        await client.close()


async def _measure_case(case: Case, mailbox: Mailbox, beside: Mailbox) -> dict[str, Any]:
    if case.in_the_way is not None:
        await case.in_the_way(mailbox)
    await mailbox.send(case.waiting)
    await beside.send(min(case.waiting, WAITING))
    row: dict[str, Any] = {
        "title": case.title,
        "batch": case.batch,
        "resident_mb": mailbox.broker.resident_mb(),
    }
    for kind in KINDS:
        turns, base = [], []
        for _ in range(TURNS):
            turns.append(await mailbox.cycles(case.batch, kind))
            base.append(await beside.cycles(case.batch, kind))
        row[kind] = {
            f"cycle_{name}_ms": statistics.median(figures[f"cycle_{name}_ms"] for figures in turns)
            for name in ("p10", "p50", "p99")
        }
        row[kind]["cycle_first_ms"] = turns[0]["cycle_first_ms"]
        row[kind]["base_p10_ms"] = statistics.median(figures["cycle_p10_ms"] for figures in base)
        row[kind]["times_base"] = statistics.median(
            figures["cycle_p10_ms"] / other["cycle_p10_ms"]
            for figures, other in zip(turns, base, strict=True)
        )
    return row


async def measure(count: int, only: str, *, on_disk: bool = False) -> dict[str, Any]:
    """All cases whose title contains `only`, each with brokers of its own, so that none pays for another."""
    rows = []
    for case in _cases(count):
        if only in case.title:
            async with (
                Mq9Broker(test_clock=True, on_disk=on_disk) as broker,
                Mq9Broker(test_clock=True, on_disk=on_disk) as other,
                _mailbox(broker) as mailbox,
                _mailbox(other) as beside,
            ):
                rows.append(await _measure_case(case, mailbox, beside))
            print(f"flat: FETCH {case.batch}, {case.title}: done", file=sys.stderr)
    return {"count": count, "rows": rows, "limit": LIMIT}
