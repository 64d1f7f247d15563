"""Operations on both sides: the reference broker's shell and engine in this process, and the model.

A sequence of `Step`s is played on both. What differs is reported as a `Difference`, which can be written as a
scenario, so that a find of today is a test of tomorrow.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import yaml

from mq9_broker.clock import ManualClock
from mq9_broker.engine import Engine, EngineLimits
from mq9_broker.shell.shell import Shell
from mq9_broker.store import MemoryStore

from ..spec import Spec
from .reference import Model, ModelError

START_MS = 1_800_000_000_123
# What the model does not know of a message, or knows in another form.
_HIDDEN = ("create_time", "encoding", "headers")
# Stands for the lease of a FETCH that brought nothing.
NO_LEASE = "no-such-lease"
_DEAD_LETTER_PREFIX = "mq9-dead-letter-"


@dataclass(frozen=True)
class Step:
    """One operation with its parameters, under the names of the spec; or `advance` with `milliseconds`.

    Attributes:
        method: The method's name in an SDK.
        arguments: The parameters. `lease` is the number of the FETCH, from 0, whose lease_id is meant.
    """

    method: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """The first step at which broker and model disagree."""

    steps: tuple[Step, ...]
    expected: Any
    seen: Any

    def __str__(self) -> str:
        """Both sides, and the steps that lead there."""
        lines = "\n".join(f"  {step.method} {step.arguments}" for step in self.steps)
        return f"after\n{lines}\nthe model says {self.expected}\nthe broker says {self.seen}"


class _Connection:
    """Takes the shell's replies."""

    is_closed = False

    def __init__(self) -> None:
        self.replies: list[bytes] = []

    def listens(self, subject: bytes) -> bool:
        return True

    def send_replies(self, replies: Iterable[tuple[bytes, bytes]]) -> None:
        self.replies += [reply for _, reply in replies]


class Sides:
    """The broker and the model, fed with the same steps."""

    def __init__(self, spec: Spec) -> None:
        """Begins with an empty broker and an empty model at the same moment."""
        self._spec = spec
        self._model = Model(START_MS)
        self._loop = asyncio.new_event_loop()
        self._clock = ManualClock(START_MS)
        self._shell = Shell(Engine(MemoryStore(), EngineLimits()), self._clock)
        self._shell.start(self._loop)
        self._connection = _Connection()
        self._lease_ids: list[str] = []

    def close(self) -> None:
        """Ends the broker."""
        self._shell.close()
        self._loop.close()

    def take(self, step: Step) -> tuple[Any, Any]:
        """Takes one step on both sides; what the model says, and what the broker says."""
        if step.method == "advance":
            milliseconds = step.arguments["milliseconds"]
            self._model.advance(milliseconds)
            self._shell.advance_clock(milliseconds)
            return None, None
        expected, seen = self._ask_model(step), self._ask_broker(step)
        if step.method == "query":
            return _without_order(expected), _without_order(seen)
        return expected, seen

    def _ask_model(self, step: Step) -> Any:
        arguments = {name: tuple(v) if isinstance(v, list) else v for name, v in step.arguments.items()}
        if step.method == "fetch":
            arguments["lease_name"] = str(len(self._lease_ids))
        elif "lease" in arguments:
            arguments["lease"] = str(arguments["lease"])
        try:
            return {"ok": getattr(self._model, step.method)(**arguments)}
        except ModelError as error:
            return {"code": error.code}

    def _ask_broker(self, step: Step) -> Any:
        operation = self._spec.by_method[step.method]
        arguments = dict(step.arguments)
        if step.method == "send":
            arguments["payload"] = {"text": arguments["payload"]}
        if step.method == "fetch":
            arguments["max_wait_ms"] = 0
        if "lease" in arguments:
            arguments["lease_id"] = self._lease_ids[arguments.pop("lease")] or NO_LEASE
        request = self._spec.request(operation, arguments)
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers)
        block = f"NATS/1.0\r\n{head}\r\n".encode() if head else None
        self._shell.handle(self._connection, [(request.subject.encode(), b"r", block, request.payload)])
        [reply] = map(json.loads, self._connection.replies)
        self._connection.replies.clear()
        if step.method == "fetch":
            self._lease_ids.append(reply.get("lease_id", ""))
        if reply["error"]:
            return {"code": reply["code"]}
        return {"ok": self._seen(step.method, reply)}

    @staticmethod
    def _seen(method: str, reply: dict[str, Any]) -> Any:
        if method == "mailbox_info":
            return {name: reply["mailbox"][name] for name in ("messages", "delayed", "groups")}
        if method in {"fetch", "query"}:
            return [_seen_message(message) for message in reply["messages"]]
        field_of = {"mailbox_create": "mail_address", "mailbox_delete": "deleted", "send": "msg_id"}
        name = {**field_of, "delete": "deleted", "renew": "renewed"}.get(method)
        return reply[name] if name else None


def _without_order(result: Any) -> Any:
    """Dead letters without their ids, sorted: which of two that die together comes first is not said."""
    messages = result.get("ok", [])
    if not any("dead_letter" in message for message in messages):
        return result
    bare = [{name: value for name, value in m.items() if name != "msg_id"} for m in messages]
    return {"ok": sorted(bare, key=lambda message: json.dumps(message, sort_keys=True))}


def _seen_message(message: dict[str, Any]) -> dict[str, Any]:
    seen = {name: value for name, value in message.items() if name not in _HIDDEN}
    seen["payload"] = base64.b64decode(message["payload"]).decode()
    letter = {
        name.removeprefix(_DEAD_LETTER_PREFIX): values[0]
        for name, values in message.get("headers", {}).items()
        if name.startswith(_DEAD_LETTER_PREFIX)
    }
    if letter:
        seen["dead_letter"] = {name: letter[name] for name in ("from", "group", "msg-id")}
        del seen["create_time_ms"]  # it is delivered when the broker gets to it
    return seen


def compare(spec: Spec, steps: Sequence[Step]) -> Difference | None:
    """Plays steps on both sides; the first difference, None if there is none."""
    sides = Sides(spec)
    try:
        for number, step in enumerate(steps):
            expected, seen = sides.take(step)
            if expected != seen:
                return Difference(tuple(steps[: number + 1]), expected, seen)
    finally:
        sides.close()
    return None


def shortest(spec: Spec, steps: Sequence[Step]) -> tuple[Step, ...]:
    """Leaves out what the two sides differ without: many steps at once first, then one, then any two."""
    difference = compare(spec, steps)
    if difference is None:
        return tuple(steps)
    left = list(difference.steps)
    size = max(1, len(left) // 2)
    while True:
        is_shorter, position = False, len(left)
        while position > 0:
            first = max(0, position - size)
            found = compare(spec, _without(left, range(first, position)))
            if found is not None:
                left, is_shorter = list(found.steps), True
            position = min(first, len(left))
        if size == 1 and not is_shorter:
            pairs = combinations(range(len(left)), 2)
            differences = (compare(spec, _without(left, pair)) for pair in pairs)
            found = next((difference for difference in differences if difference is not None), None)
            if found is None:
                return tuple(left)
            left = list(found.steps)
        size = max(1, size // 2)


def _without(steps: Sequence[Step], positions: Collection[int]) -> list[Step]:
    """The steps without some of them, and without those that name a lease of theirs."""
    rest: list[Step] = []
    numbers: dict[int, int] = {}  # of each FETCH: before, now
    before = 0
    for position, step in enumerate(steps):
        is_fetch = step.method == "fetch"
        if position not in positions:
            if is_fetch:
                numbers[before] = len(numbers)
            lease = step.arguments.get("lease")
            if lease is None:
                rest.append(step)
            elif lease in numbers:
                rest.append(Step(step.method, {**step.arguments, "lease": numbers[lease]}))
        before += is_fetch
    return rest


def as_scenario(steps: Sequence[Step], name: str, covers: Sequence[str]) -> str:
    """Writes steps as a scenario, with what the model says as the expectation."""
    model, written = Model(START_MS), []
    leases: list[str] = []
    for step in steps:
        if step.method == "advance":
            model.advance(step.arguments["milliseconds"])
            written.append({"clock": f"+{step.arguments['milliseconds']}ms"})
            continue
        arguments = {
            k: _address(v) if k in _ADDRESSES else v for k, v in step.arguments.items() if k != "lease"
        }
        if "lease" in step.arguments:
            arguments["lease_id"] = leases[step.arguments["lease"]]
        if step.method == "fetch":
            arguments["max_wait_ms"] = 0
        entry: dict[str, Any] = {f"raw.{step.method}": arguments}
        expectation = _expectation(model, step, len(leases))
        if step.method == "fetch":
            leases.append((expectation.get("expect") or {}).get("lease_id", NO_LEASE))
        written.append(entry | expectation)
    scenario = [{"scenario": name, "covers": list(covers), "steps": written}]
    return yaml.safe_dump(scenario, sort_keys=False, allow_unicode=True, default_flow_style=None, width=140)


_ADDRESSES = ("mail_address", "name", "dead_letter")


def _address(value: str) -> str:
    return f"${value}"


def _expectation(model: Model, step: Step, fetches: int) -> dict[str, Any]:
    arguments = {name: tuple(v) if isinstance(v, list) else v for name, v in step.arguments.items()}
    if step.method == "fetch":
        arguments["lease_name"] = str(fetches)
    elif "lease" in arguments:
        arguments["lease"] = str(arguments["lease"])
    try:
        result = getattr(model, step.method)(**arguments)
    except ModelError as error:
        return {"expect_error": {"kind": "server", "code": error.code}}
    if step.method == "mailbox_create":
        return {"expect": _address(result)}
    if step.method in {"fetch", "query"}:
        kept = ("msg_id", "payload", "priority", "key", "tags", "delivery_count")
        messages = [{k: v for k, v in message.items() if k in kept} for message in result]
        if step.method == "query":
            return {"expect": messages}
        leased = step.arguments.get("lease_ms") and messages
        return {"expect": {"messages": messages, **({"lease_id": f"$lease{fetches}"} if leased else {})}}
    return {} if result is None else {"expect": result}
