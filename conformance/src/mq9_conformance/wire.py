"""What an SDK sent: records of requests, how they are compared, and transcripts to compare SDKs by."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .matching import ABSENT, match, same, show
from .results import Failure
from .values import Variables, canonical_json, payload_bytes

Rule = Mapping[str, Any]


@dataclass
class WireRecord:
    """One mq9 request as it passed by."""

    client: str
    connection: int
    operation: str | None
    subject: str
    headers: list[tuple[str, str]]
    payload: bytes
    at: float
    gap_ms: float
    reply: bytes | None = None
    beside: bool = False
    """Whether it went out before the request in front of it was answered."""

    def as_data(self) -> dict[str, Any]:
        """The fields that a scenario may compare."""
        data: dict[str, Any] = {
            "operation": self.operation,
            "subject": self.subject,
            "headers": dict(self.headers),
            "payload": self.payload,
            "gap_ms": self.gap_ms,
            "client": self.client,
        }
        try:
            data["json"] = json.loads(self.payload)
        except ValueError:
            data["json"] = ABSENT
        return data

    def describe(self) -> str:
        """The request on one line."""
        headers = f" {dict(self.headers)}" if self.headers else ""
        return f"{self.subject}{headers} {show(self.payload, 200)}"


@dataclass
class WireLog:
    """The requests of one client, in the order in which they were sent, from all its connections."""

    client: str
    records: list[WireRecord] = field(default_factory=list)
    mark: int = 0
    end: int | None = None
    """How many requests there were when the scenario's last step was done: what ends it is not compared."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, record: WireRecord) -> None:
        """Notes a request and wakes whoever waits for one."""
        record.beside = bool(self.records) and self.records[-1].reply is None
        self.records.append(record)
        self.changed.set()

    def gap_ms(self) -> float:
        """Milliseconds since the newest request; 0 before the first."""
        return (time.monotonic() - self.records[-1].at) * 1000 if self.records else 0.0

    async def wait_until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Waits until a condition on the records holds; says whether it came to hold in time."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            self.changed.clear()
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            try:
                await asyncio.wait_for(self.changed.wait(), left)
            except asyncio.TimeoutError:
                return holds()
        return True


def compare(expected: Rule, record: WireRecord, variables: Variables, *, exact: bool, path: str) -> list[str]:
    """Compares one request; exact: `json` and `headers` have no other keys."""
    problems: list[str] = []
    actual = record.as_data()
    for key, wanted in expected.items():
        place = f"{path}.{key}"
        if key == "requests":
            continue
        if key == "forbid_headers":
            for pattern in wanted:
                bad = [n for n, _ in record.headers if fnmatch.fnmatchcase(n.lower(), pattern.lower())]
                problems += [f"{place}: header {name} was sent" for name in bad]
        elif key == "empty":
            if bool(wanted) != (record.payload == b""):
                problems.append(f"{place}: got {show(record.payload)}")
        elif exact and key in {"json", "headers"} and isinstance(wanted, Mapping):
            problems += _exact(wanted, actual[key], variables, place)
        else:
            problems += match(wanted, actual.get(key, ABSENT), variables, place)
    return problems


def _exact(expected: Mapping[str, Any], actual: Any, variables: Variables, path: str) -> list[str]:
    """Exact at every level below, except where a matcher stands."""
    if not isinstance(actual, Mapping):
        return [f"{path}: expected a map, got {show(actual)}"]
    problems = [
        f"{path}.{key}: not expected, got {show(actual[key])}" for key in actual if key not in expected
    ]
    for key, wanted in expected.items():
        got = actual.get(key, ABSENT)
        if isinstance(wanted, Mapping) and not str(next(iter(wanted), "$")).startswith("$"):
            problems += _exact(wanted, got, variables, f"{path}.{key}")
        else:
            problems += match(wanted, got, variables, f"{path}.{key}")
    return problems


def check_step(expected: Any, records: list[WireRecord], variables: Variables) -> None:
    """Checks `wire:` beside a step: exactly these requests; raises Failure."""
    wanted: list[Rule] = (
        [] if expected == "nothing" else expected if isinstance(expected, list) else [expected]
    )
    spread = [rule for rule in wanted for _ in range(int(rule.get("requests", 1)))]
    problems: list[str] = []
    if len(spread) != len(records):
        sent = "; ".join(record.describe() for record in records) or "nothing"
        problems.append(f"wire: expected {len(spread)} requests, got {len(records)}: {sent}")
    else:
        for index, (rule, record) in enumerate(zip(spread, records, strict=True)):
            problems += compare(rule, record, variables, exact=True, path=f"wire[{index}]")
    if problems:
        raise Failure("; ".join(problems))


def find_sequence(
    expected: list[Rule], records: list[WireRecord], variables: Variables
) -> tuple[Variables, list[Rule]]:
    """Looks for requests in this order, others between allowed; gives the bindings and what was not found."""
    trial = Variables(variables.stem, dict(variables.bound))
    position = 0
    for number, rule in enumerate(expected):
        while position < len(records):
            attempt = Variables(trial.stem, dict(trial.bound))
            problems = compare(rule, records[position], attempt, exact=False, path="wire")
            position += 1
            if not problems:
                trial = attempt
                break
        else:
            return trial, expected[number:]
    return trial, []


def check_count(expected: Mapping[str, Any], records: list[WireRecord], variables: Variables) -> list[str]:
    """Checks the number of requests of each operation named."""
    counts = Counter(record.operation or record.subject for record in records)
    problems = []
    for operation, wanted in expected.items():
        problems += match(wanted, counts[operation], variables, f"wire.count.{operation}")
    return problems


_HEX_ID = re.compile(r"^[0-9a-f]{32}$")


def transcript(logs: list[WireLog], variables: Variables) -> dict[str, list[dict[str, Any]]]:
    """The requests of a scenario in a form that is the same for every SDK that behaves the same.

    Generated names and ids are numbered, headers sorted, JSON canonical, empty FETCHes and
    RENEWs that repeat themselves are one, and FETCHes at the end that brought nothing are left out; requests
    that went out side by side are sorted; times are left out.
    """
    names = variables.reverse()
    seen: dict[str, str] = {}

    def plain(text: str, number: bool = True) -> str:
        for value, name in names.items():
            text = text.replace(value, name)
        return numbered(text, number) if _HEX_ID.match(text) else text

    def numbered(text: str, number: bool) -> str:
        return seen.setdefault(text, f"$id{len(seen) + 1}") if number else "$id"

    def clean(value: Any, key: str = "", number: bool = True) -> Any:
        if isinstance(value, str):
            return numbered(value, number) if key == "lease_id" else plain(value, number)
        if isinstance(value, list):
            return [clean(item, number=number) for item in value]
        if isinstance(value, dict):
            return {plain(name, number): clean(item, name, number) for name, item in value.items()}
        if isinstance(value, int) and not isinstance(value, bool):
            return variables.moment(value)
        return value

    def line_of(record: WireRecord, number: bool = True) -> dict[str, Any]:
        line: dict[str, Any] = {"subject": plain(record.subject, number)}
        if record.headers:
            line["headers"] = sorted([name, plain(value, number)] for name, value in record.headers)
        if record.operation == "msg.send":
            line["payload"] = show(record.payload)
        elif record.payload:
            line["json"] = canonical_json(clean(_json_or_text(record.payload), number=number))
        return line

    result: dict[str, list[dict[str, Any]]] = {}
    for log in sorted(logs, key=lambda log: log.client):
        lines: list[dict[str, Any]] = []
        for group in _side_by_side(_without_last_waits(log.records[: log.end])):
            for record in sorted(group, key=lambda record: canonical_json(line_of(record, False))):
                line = line_of(record)
                repeats = bool(lines) and lines[-1] == line
                if not (repeats and (record.operation == "msg.renew" or _was_empty(record))):
                    lines.append(line)
        result[log.client] = lines
    return result


def _without_last_waits(records: list[WireRecord]) -> list[WireRecord]:
    """Leaves out FETCHes at the end that brought nothing: when a loop begins its next one depends on time."""
    end = len(records)
    while (
        end
        and records[end - 1].operation == "msg.fetch"
        and (records[end - 1].reply is None or _was_empty(records[end - 1]))
    ):
        end -= 1
    return records[:end]


def _side_by_side(records: list[WireRecord]) -> list[list[WireRecord]]:
    """Requests that went out before the one in front of them was answered stand in one group."""
    groups: list[list[WireRecord]] = []
    for record in records:
        if record.beside and groups:
            groups[-1].append(record)
        else:
            groups.append([record])
    return groups


def _json_or_text(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except ValueError:
        return payload.decode("utf-8", "replace")


def _was_empty(record: WireRecord) -> bool:
    if record.reply is None:
        return False
    reply = _json_or_text(record.reply)
    return isinstance(reply, dict) and same(reply.get("messages"), [])


def reply_payload(reply: Mapping[str, Any], variables: Variables) -> bytes:
    """The bytes of a scripted reply."""
    for form in ("json", "text", "base64", "hex"):
        if form in reply:
            return payload_bytes({form: variables.resolve(reply[form])})
    return b""
