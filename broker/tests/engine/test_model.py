"""Random operations against the engine and against the simplest possible model of a mailbox."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from mq9_broker.engine.effects import DeadLetter, Deliverable, Effect

from .model import Model
from .support import START_MS, Bench, EngineError, counts, dedup_id, ids

GROUPS = ("g", "h")
KEYS = ("", "", "", "k", "l")
STEPS = 250


class Run:
    """One sequence of random operations."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.random = random.Random(seed)
        limit = self.random.choice((0, 0, 1, 2, 3))
        dead_letter = self.random.choice(("", "dead"))
        bench.create(max_deliveries=limit, dead_letter=dead_letter)
        self.model = Model(START_MS, max_deliveries=limit, dead_letter=bool(dead_letter))
        self.leases: dict[int, str] = {}
        """The model's token -> the engine's lease_id."""
        self.log: list[str] = []
        self.may_be_silent = ""
        self.effects: list[Effect] = []

    def step(self) -> None:
        names = ("send", "send", "send", "fetch", "fetch", "ack", "nack", "renew", "time", "delete", "look")
        weights = (6, 3, 3, 6, 3, 5, 4, 2, 6, 1, 2)
        before = self._deliverable()
        self.may_be_silent = ""
        getattr(self, self.random.choices(names, weights)[0])()
        woken = {effect.group for effect in self.bench.effects if isinstance(effect, Deliverable)}
        for name, open_now in self._deliverable().items():
            if open_now - before[name] and name != self.may_be_silent:
                assert woken & {"", name} if name else "" in woken, f"nobody wakes {name!r}"
        assert self._given_up() == sorted(self.model.dead_letters)
        self.model.dead_letters.clear()

    def _deliverable(self) -> dict[str, set[int]]:
        """Group -> what it could get now; "" = what a stateless FETCH could."""
        deliverable = {
            name: {m.msg_id for m in self.model.open_messages(self.model.groups[name])}
            if name in self.model.groups
            else set()
            for name in GROUPS
        }
        deliverable[""] = {msg_id for msg_id in self.model.messages if self.model.alive(msg_id)}
        return deliverable

    def _given_up(self) -> list[tuple[str, int, int]]:
        found = []
        for effect in self.bench.effects:
            if isinstance(effect, DeadLetter):
                _, _, _, group, number, count = dedup_id(effect).split(":")
                headers = effect.send[2]
                name = headers.split(b'"mq9-dead-letter-group":["')[1].split(b'"')[0].decode()
                assert int(group) > 0
                found.append((name, int(number), int(count)))
        self.bench.effects = []
        return sorted(found)

    def _ids(self) -> tuple[int, ...]:
        recent = max(0, self.model.next_id - 12)
        pool = range(recent, self.model.next_id + 2)
        if self.random.random() < 0.2:
            pool = range(self.model.next_id + 1)
        count = min(self.random.choice((1, 1, 2, 5, 12)), len(pool))
        chosen = self.random.sample(pool, count)
        if self.random.random() < 0.1:
            chosen.append(chosen[0])
        return tuple(chosen)

    def _group(self) -> str:
        return self.random.choice(GROUPS)

    def send(self) -> None:
        rnd = self.random
        options: dict[str, Any] = {}
        for name, chance, values in (
            ("key", 0.25, KEYS[3:]),
            ("delay_s", 0.15, (1, 2, 3, 10)),
            ("ttl_s", 0.25, (1, 2, 3, 5, 20)),
            ("tags", 0.2, (("a",), ("b", "a"), ("c",))),
            ("dedup_id", 0.1, ("d", "e")),
        ):
            if rnd.random() < chance:
                options[name] = rnd.choice(values)
        lane = rnd.choice((0, 1, 2, 2, 2))
        for _ in range(rnd.choice((1, 1, 1, 4))):
            payload = str(self.model.next_id)
            self.log.append(f"send {lane} {options}")
            priority = ("critical", "urgent", "normal")[lane]
            expected = self.model.send(lane, payload, **options)
            assert self.bench.send(payload, priority=priority, **options) == expected
            self.effects += self.bench.effects
        self.bench.effects, self.effects = self.effects, []

    def fetch(self) -> None:
        rnd = self.random
        name = rnd.choice(("", *GROUPS, *GROUPS, *GROUPS))
        deliver = rnd.choice(("earliest", "earliest", "latest", "from_id", "from_time"))
        where = 0
        if deliver == "from_id":
            where = rnd.randrange(self.model.next_id + 4)
        elif deliver == "from_time":
            where = self.model.now // 1000 + rnd.randrange(-6, 4)
        force = rnd.random() < 0.06
        num_msgs = rnd.choice((1, 2, 5, 100))
        lease_ms = rnd.choice((0, 1, 500, 2000, 10_000)) if name else 0
        if name not in self.model.groups:
            self.may_be_silent = name  # nobody can wait for it yet
        self.log.append(f"fetch {name!r} {deliver} {where} {force=} {num_msgs=} {lease_ms=}")
        expected, expected_counts, token = self.model.fetch(name, deliver, where, force, num_msgs, lease_ms)
        reply = self.bench.fetch_reply(
            name,
            deliver=deliver,
            from_id=where if deliver == "from_id" else None,
            from_time=where if deliver == "from_time" else None,
            force_deliver=force,
            num_msgs=num_msgs,
            lease_ms=lease_ms,
        )
        assert ids(reply) == expected
        assert counts(reply) == {msg_id: expected_counts.get(msg_id, 0) for msg_id in expected}
        assert ("lease_id" in reply) == bool(token)
        if token:
            self.leases[token] = reply["lease_id"]

    def ack(self) -> None:
        name, chosen = self._group(), self._ids()
        self.log.append(f"ack {name} {chosen}")
        self.model.ack(name, chosen)
        self.bench.ack(*chosen, group=name)

    def _lease(self) -> int:
        return self.random.choice((0, 0, *list(self.leases)[-4:]))

    def nack(self) -> None:
        name, chosen, token = self._group(), self._ids(), self._lease()
        delay_ms = self.random.choice((0, 0, 1, 700, 3000))
        self.log.append(f"nack {name} {chosen} {token=} {delay_ms=}")
        self.model.nack(name, chosen, token, delay_ms)
        self.bench.nack(*chosen, group=name, delay_ms=delay_ms, lease_id=self.leases.get(token, ""))

    def renew(self) -> None:
        name, chosen, token = self._group(), self._ids(), self._lease()
        lease_ms = self.random.choice((0, 1000, 4000))
        self.log.append(f"renew {name} {chosen} {token=} {lease_ms=}")
        expected = self.model.renew(name, chosen, token, lease_ms)
        lease_id = self.leases.get(token, "")
        assert self.bench.renew(*chosen, group=name, lease_ms=lease_ms, lease_id=lease_id) == expected

    def time(self) -> None:
        duration = self.random.choice((1, 300, 700, 1000, 1000, 2000, 7000, 121_000))
        self.log.append(f"time {duration}")
        self.model.pass_to(self.model.now + duration)
        self.bench.pass_ms(duration)

    def delete(self) -> None:
        msg_id = self._ids()[0]
        self.log.append(f"delete {msg_id}")
        found = self.model.delete(msg_id)
        try:
            self.bench.delete(msg_id)
            assert found
        except EngineError as error:
            assert error.code == "message_not_found"
            assert not found

    def look(self) -> None:
        rnd = self.random
        key, tags = rnd.choice(KEYS), rnd.choice(((), (), ("a",), ("a", "b")))
        since = rnd.choice((None, None, self.model.now // 1000 - rnd.randrange(-1, 5)))
        from_id = rnd.choice((None, rnd.randrange(self.model.next_id + 2)))
        limit = rnd.choice((1, 3, 100))
        self.log.append(f"query {key=} {tags=} {since=} {from_id=} {limit=}")
        expected = self.model.query(key, tags, since, from_id, limit)
        found = self.bench.query(key=key, tags=tags, since=since, from_id=from_id, limit=limit)
        assert found == expected
        info = self.bench.info()
        assert {name: info[name] for name in ("messages", "delayed", "groups")} == self.model.info()


@pytest.mark.parametrize("seed", range(12))
def test_engine_does_what_the_model_does(new_bench: Callable[..., Bench], seed: int) -> None:
    run = Run(new_bench(), seed)
    try:
        for _ in range(STEPS):
            run.step()
        run.look()
    except AssertionError as error:
        raise AssertionError("\n".join([*run.log[-40:], str(error)])) from error
