"""Random commands over a few mailboxes and agents, in calls as a shell would make them; from a seed alone."""

from __future__ import annotations

import random

import msgspec

from mq9_broker._generated import commands as ops
from mq9_broker.engine.commands import Command, SendOptions, encode_command

BOXES = (b"a", b"b.c", b"d1")
GROUPS = ("g", "h", "ü")
AGENTS = ("x", "y", "é", "z1")

Calls = list[tuple[int, list[bytes]]]
"""(time in ms, byte forms) of each call of apply."""


def random_calls(seed: int, total: int) -> Calls:
    """Calls with ``total`` commands in all."""
    rnd = random.Random(seed)
    now = 1_000_000
    calls: Calls = []
    made = 0
    while made < total:
        now += rnd.choice((0, 0, 1, 50, 400, 1000, 2500, 30_000)) if rnd.random() < 0.7 else 0
        count = min(rnd.choice((0, 1, 1, 2, 5, 20)), total - made)
        calls.append((now, [encode_command(_command(rnd, now)) for _ in range(count)]))
        made += count
    return calls


def _command(rnd: random.Random, now: int) -> Command:
    box, group = rnd.choice(BOXES), rnd.choice(GROUPS)
    ids = tuple(rnd.sample(range(400), rnd.choice((1, 2, 8, 60))))
    kind = rnd.choices(
        ("send", "plain", "fetch", "ack", "nack", "renew", "delete", "box", "agent", "look"),
        (6, 10, 10, 8, 4, 3, 2, 2, 4, 3),
    )[0]
    if kind == "plain":
        return (box, rnd.choice((0, 1, 2, 2, 2)), b"", rnd.randbytes(rnd.choice((0, 5, 200))), None)
    if kind == "send":
        options = SendOptions(
            key=rnd.choice(("", "", "k1", "k2")),
            delay_s=rnd.choice((0, 0, 0, 1, 40)),
            ttl_s=rnd.choice((0, 0, 2, 90)),
            tags=rnd.choice(((), ("t",), ("t", "u"))),
            dedup_id=rnd.choice(("", "", "d1", "d2", "d3")),
        )
        return (box, rnd.choice((0, 1, 2)), rnd.choice((b"", b'{"X":["1","2"]}')), b"o", options)
    if kind == "fetch":
        deliver = rnd.choice(("earliest", "earliest", "latest", "from_id", "from_time"))
        return (
            ops.MsgFetch(
                box,
                rnd.choice((group, group, group, "")),
                deliver,
                now // 1000 + rnd.randrange(-20, 5) if deliver == "from_time" else None,
                rnd.randrange(100) if deliver == "from_id" else None,
                rnd.random() < 0.02,
                rnd.choice((1, 10, 100)),
                0,
                0,
            )
            if rnd.random() < 0.3
            else ops.MsgFetch(
                box,
                group,
                deliver="earliest",
                num_msgs=rnd.choice((1, 7, 50)),
                lease_ms=rnd.choice((900, 20_000)),
            )
        )
    if kind == "ack":
        return ops.MsgAck(box, group, None, ids)
    if kind == "nack":
        return ops.MsgNack(box, group, ids, "", rnd.choice((0, 0, 800, 30_000)))
    if kind == "renew":
        return ops.MsgRenew(box, group, ids, rnd.choice((0, 1000, 20_000)))
    if kind == "delete":
        return ops.MsgDelete(box, ids[0])
    if kind == "box":
        if rnd.random() < 0.15:
            return ops.MailboxDelete(box)
        return ops.MailboxCreate(
            box, rnd.choice((0, 300)), "", rnd.choice((0, 2)), rnd.choice((b"", b"b.c2"))
        )
    if kind == "agent":
        return _agent_command(rnd)
    return rnd.choice((ops.MailboxInfo(box), ops.MsgQuery(box, limit=5), ops.AgentDiscover(limit=2)))


def _agent_command(rnd: random.Random) -> msgspec.Struct:
    name, mailbox = rnd.choice(AGENTS), rnd.choice(("m1", "m2"))
    kind = rnd.randrange(4)
    if kind == 0:
        return ops.AgentUnregister(*rnd.choice(((name, ""), ("", mailbox))))
    if kind == 1:
        return ops.AgentReport(*rnd.choice(((name, ""), ("", mailbox))), b'{"load":1}')
    return ops.AgentRegister(name, mailbox, rnd.choice((0, 60)), b'{"name":"%b"}' % name.encode())
