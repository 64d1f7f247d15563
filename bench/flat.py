"""What a FETCH and its ACK cost must not depend on what else is in the mailbox.

Each case fills a new mailbox, then one connection runs FETCH + ACK, sending as many messages again after each
round trip (outside the measured times), so that the number of waiting messages stays the same. Messages in
the way lie in the lane of those that are fetched or in the lane before it; they cannot be delivered, and a
FETCH must not pay for walking past them again and again.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from harness import MQ9, Mq9Broker, mq9_request, run_load

GROUP = "bench"
CYCLES = 300
WAITING = 1000
"""Deliverable messages behind those in the way."""
CENTURY_S = 3_000_000_000
HOUR_MS = 3_600_000
LIMIT = 2.0
"""The time of a good run (10th percentile: the median is too much at the mercy of a busy machine) may be this
many times that of the case with nothing in the way before it counts as not flat: room for cache misses in a
mailbox of a million messages, none for work that grows with it."""
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


async def _measure_case(broker: Mq9Broker, case: Case) -> dict[str, Any]:
    client = await broker.connect()
    try:
        mailbox = Mailbox(broker, str((await mq9_request(client, "MAILBOX.CREATE"))["mail_address"]))
        if case.in_the_way is not None:
            await case.in_the_way(mailbox)
        await mailbox.send(case.waiting)
        row: dict[str, Any] = {"title": case.title, "batch": case.batch, "resident_mb": broker.resident_mb()}
        for kind, options in KINDS.items():
            load = await run_load(
                broker,
                "fetch",
                mailbox=mailbox.address,
                group=GROUP,
                connections=1,
                batch=case.batch,
                total=CYCLES * case.batch,
                refill=True,
                **options,
            )
            row[kind] = load.figures
            await mailbox.send(case.batch)  # the last batch was not sent again
        await mq9_request(client, f"MAILBOX.DELETE.{mailbox.address}")
        return row
    finally:
        await client.close()


async def measure(count: int, only: str, *, on_disk: bool = False) -> dict[str, Any]:
    """All cases whose title contains `only`, each with a broker of its own, so that none pays for another."""
    rows = []
    for case in _cases(count):
        if only in case.title:
            async with Mq9Broker(test_clock=True, on_disk=on_disk) as broker:
                rows.append(await _measure_case(broker, case))
            print(f"flat: FETCH {case.batch}, {case.title}: done", file=sys.stderr)
    base = {
        (row["batch"], kind): row[kind]["cycle_p10_ms"]
        for kind in KINDS
        for row in reversed(rows)
        if "waiting" in row["title"]
    }
    for row in rows:
        for kind in KINDS:
            reference = base.get((row["batch"], kind))
            row[kind]["times_base"] = row[kind]["cycle_p10_ms"] / reference if reference else None
    return {"count": count, "rows": rows, "limit": LIMIT}
