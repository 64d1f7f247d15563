"""An engine with a clock in hand: short calls for tests, replies as Python values."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from mq9_broker._generated.commands import (
    AgentDiscover,
    AgentRegister,
    AgentReport,
    AgentUnregister,
    MailboxCreate,
    MailboxDelete,
    MailboxInfo,
    MsgAck,
    MsgDelete,
    MsgFetch,
    MsgNack,
    MsgQuery,
    MsgRenew,
)
from mq9_broker.engine import Engine, EngineLimits
from mq9_broker.engine.commands import PRIORITIES, Command, SendOptions
from mq9_broker.engine.effects import DeadLetter, Effect
from mq9_broker.store import Store

BOX = "box"
START_MS = 1_000_000


class EngineError(Exception):
    """A failed reply."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class Bench:
    """One engine; ``cold`` makes a new one over the same store before every call."""

    def __init__(self, store: Store, limits: EngineLimits | None = None, *, cold: bool = False) -> None:
        self.store = store
        self.limits = limits or EngineLimits()
        self.cold = cold
        self.engine = Engine(store, self.limits)
        self.now = START_MS
        self.effects: list[Effect] = []
        """Of the last call, those of its timers first."""

    def apply(self, *commands: Command) -> list[bytes]:
        if self.cold:
            self.engine = Engine(self.store, self.limits)
        applied = self.engine.apply(self.now, commands)
        self.effects = [*applied.timer_effects, *(e for _, effects in applied.results for e in effects)]
        return [reply for reply, _ in applied.results]

    def call(self, command: Command) -> dict[str, Any]:
        (reply,) = self.apply(command)
        return opened(reply)

    def pass_ms(self, duration: int) -> list[Effect]:
        """Lets time pass, then ticks; returns the effects."""
        self.now += duration
        self.apply()
        return self.effects

    def settle(self) -> None:
        """Ticks until nothing is due."""
        for _ in range(10_000):
            due = self.engine.next_due()
            if due is None or due > self.now:
                return
            self.apply()
        raise AssertionError("the engine does not come to rest")

    # Operations

    def create(self, name: str = BOX, **options: Any) -> str:
        options["dead_letter"] = options.get("dead_letter", "").encode()
        self.call(MailboxCreate(name.encode(), **options))
        return name

    def drop(self, name: str = BOX) -> dict[str, Any]:
        return self.call(MailboxDelete(name.encode()))

    def send(
        self,
        payload: str = "",
        name: str = BOX,
        *,
        priority: str = "normal",
        headers: dict[str, list[str]] | None = None,
        **options: Any,
    ) -> int:
        head = msgspec.json.encode(headers) if headers else b""
        tail = SendOptions(**options) if options else None
        command = (name.encode(), PRIORITIES.index(priority), head, payload.encode(), tail)
        msg_id: int = self.call(command)["msg_id"]
        return msg_id

    def send_all(self, count: int, name: str = BOX, *, batch: int = 1000, **options: Any) -> None:
        tail = SendOptions(**options) if options else None
        for start in range(0, count, batch):
            self.apply(*[(name.encode(), 2, b"", b"", tail)] * min(batch, count - start))

    def fetch_reply(self, group: str = "g", name: str = BOX, **fields: Any) -> dict[str, Any]:
        command = MsgFetch(name.encode(), group, **fields)
        if self.cold:
            self.engine = Engine(self.store, self.limits)
        due = self.engine.next_due()
        if due is not None and due <= self.now:
            return self.call(command)
        found = self.engine.look(self.now, command)
        return self.call(command) if found is None else opened(found.reply)

    def fetch(self, group: str = "g", name: str = BOX, **fields: Any) -> list[int]:
        return ids(self.fetch_reply(group, name, **fields))

    def lease(self, group: str = "g", name: str = BOX, *, lease_ms: int = 10_000, **fields: Any) -> list[int]:
        fields.setdefault("deliver", "earliest")
        return self.fetch(group, name, lease_ms=lease_ms, **fields)

    def ack(self, *msg_ids: int, group: str = "g", name: str = BOX) -> None:
        self.call(MsgAck(name.encode(), group, None, msg_ids))

    def nack(self, *msg_ids: int, group: str = "g", name: str = BOX, **fields: Any) -> None:
        self.call(MsgNack(name.encode(), group, msg_ids, **fields))

    def renew(
        self, *msg_ids: int, group: str = "g", name: str = BOX, lease_ms: int = 10_000, lease_id: str = ""
    ) -> list[int]:
        renewed: list[int] = self.call(MsgRenew(name.encode(), group, msg_ids, lease_ms, lease_id))["renewed"]
        return renewed

    def delete(self, msg_id: int, name: str = BOX) -> dict[str, Any]:
        return self.call(MsgDelete(name.encode(), msg_id))

    def query(self, name: str = BOX, **fields: Any) -> list[int]:
        return ids(self.read(MsgQuery(name.encode(), **fields)))

    def read_all(self, name: str = BOX) -> tuple[list[int], list[str]]:
        """All messages by id: (ids, payloads)."""
        reply = self.read(MsgQuery(name.encode(), from_id=0, limit=1000))
        return ids(reply), payloads(reply)

    def info(self, name: str = BOX) -> dict[str, Any]:
        mailbox: dict[str, Any] = self.read(MailboxInfo(name.encode()))["mailbox"]
        return mailbox

    def groups(self, name: str = BOX) -> dict[str, tuple[int, int]]:
        """Group -> (pending, leased)."""
        return {g["group_name"]: (g["pending"], g["leased"]) for g in self.info(name)["groups"]}

    def read(self, command: Command) -> dict[str, Any]:
        if self.cold:
            self.engine = Engine(self.store, self.limits)
        return opened(self.engine.read(self.now, command))

    def deliver_dead_letters(self, effects: list[Effect]) -> list[dict[str, Any]]:
        """Does what the shell does with an outbox; returns the replies."""
        return [
            msgspec.json.decode(self.apply(effect.send)[0])
            for effect in effects
            if isinstance(effect, DeadLetter)
        ]

    # Agents

    def register(self, name: str, mailbox: str = "", ttl: int = 0, card: bytes = b"{}") -> None:
        self.call(AgentRegister(name, mailbox, ttl, card))

    def unregister(self, name: str = "", mailbox: str = "") -> None:
        self.call(AgentUnregister(name, mailbox))

    def report(self, name: str = "", mailbox: str = "", status: bytes = b"{}") -> None:
        self.call(AgentReport(name, mailbox, status))

    def discover(self, **fields: Any) -> dict[str, Any]:
        return self.read(AgentDiscover(**fields))


def opened(reply: bytes) -> dict[str, Any]:
    """A reply's value; a failed one is raised."""
    value: dict[str, Any] = msgspec.json.decode(reply)
    if value["error"]:
        raise EngineError(value["code"], value["error"])
    return value


def ids(reply: dict[str, Any]) -> list[int]:
    return [message["msg_id"] for message in reply["messages"]]


def payloads(reply: dict[str, Any]) -> list[str]:
    return [base64.b64decode(message["payload"]).decode() for message in reply["messages"]]


def counts(reply: dict[str, Any]) -> dict[int, int]:
    """msg_id -> delivery_count."""
    return {message["msg_id"]: message.get("delivery_count", 0) for message in reply["messages"]}


def dedup_id(letter: DeadLetter) -> str:
    """The id that keeps a dead letter from being stored twice."""
    options = letter.send[4]
    assert options is not None
    return options.dedup_id


def contents(store: Store) -> dict[bytes, bytes]:
    """All that a store holds."""
    return dict(store.scan(b"", b"\xff" * 8))
