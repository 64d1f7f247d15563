"""The store's invariants, checked: what must hold between its keys whatever commands were carried out.

Mailboxes are named by their incarnation: an address is the key to a mailbox and belongs in no report.
"""

import heapq
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, Final

from mq9_broker.engine.keys import MAILBOX
from mq9_broker.engine.mailbox import CLEANING_GRAIN_MS
from mq9_broker.engine.records import Record, RecordError, decode_record
from mq9_broker.store.interface import Store
from mq9_broker.store.sorted_map import end_of_prefix

_LANES: Final = (0, 1, 2)
_GROUP: Final = itemgetter("group_number")


def check_store(store: Store) -> Iterator[str]:
    """Yield what is wrong with a store, one sentence each; nothing when all is well."""
    yield from _Checker(store).run()


class _Checker:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._problems: list[str] = []
        self._addresses: dict[int, str] = {}
        self._timers: set[tuple[int, int]] = set()
        self._cleanings: set[tuple[int, int]] = set()
        self._agent_timers: set[tuple[int, str]] = set()
        self._agents_by_mailbox: set[tuple[str, str]] = set()
        self._next_incarnation = 1

    def run(self) -> Iterator[str]:
        yield from self._check_top()
        mailbox: _Mailbox | None = None
        for record in self._records(MAILBOX, end_of_prefix(MAILBOX)):
            if mailbox is None or mailbox.incarnation != record["incarnation"]:
                if mailbox is not None:
                    yield from self._check_mailbox(mailbox)
                mailbox = _Mailbox(record["incarnation"])
            mailbox.add(record)
        if mailbox is not None:
            yield from self._check_mailbox(mailbox)
        yield from self._take_problems()
        for incarnation in self._addresses:
            yield f"mailbox {incarnation}: an address leads to it, but nothing is there"
        for due, incarnation in sorted(self._timers):
            yield f"mailbox {incarnation}: it is entered among the timers at {due}, but not armed for then"
        for due, incarnation in sorted(self._cleanings):
            yield f"mailbox {incarnation}: it is entered for cleaning at {due}, but not armed for then"

    def _records(self, start: bytes, end: bytes) -> Iterator[Record]:
        for key, value in self._store.scan(start, end):
            try:
                yield decode_record(key, value)
            except RecordError as error:
                self._problems.append(str(error))

    def _take_problems(self) -> list[str]:
        problems, self._problems = self._problems, []
        return problems

    def _check_top(self) -> Iterator[str]:
        agents: list[Record] = []
        seen: set[str] = set()
        counts: tuple[int, int] | None = None
        for start, end in ((b"", MAILBOX), (end_of_prefix(MAILBOX), b"\xff" * 9)):
            for record in self._records(start, end):
                kind = record["kind"]
                seen.add(kind)
                if kind == "address":
                    if record["incarnation"] in self._addresses:
                        yield f"mailbox {record['incarnation']}: two addresses lead to it"
                    self._addresses[record["incarnation"]] = record["mail_address"]
                elif kind == "timer" and record["incarnation"] == 0:
                    self._agent_timers.add((record["due"], record["agent"]))
                elif kind == "timer":
                    self._timers.add((record["due"], record["incarnation"]))
                elif kind == "cleaning":
                    self._cleanings.add((record["due"], record["incarnation"]))
                elif kind == "agent":
                    agents.append(record)
                elif kind == "agent_by_mailbox":
                    self._agents_by_mailbox.add((record["mailbox"], record["name"]))
                elif kind == "counts":
                    counts = (record["mailboxes"], record["agents"])
                elif kind == "next_incarnation":
                    self._next_incarnation = record["next"]
                elif kind == "outbox" and record["source_incarnation"] != record["incarnation"]:
                    yield f"mailbox {record['incarnation']}: a dead letter in its outbox is of another"
        if "format" not in seen:
            yield "the store does not say its format"
        there = (len(self._addresses), len(agents))
        if counts is not None and counts != there:
            yield "mailboxes and agents: {} and {} are counted, {} and {} are there".format(*counts, *there)
        yield from self._check_agents(agents)

    def _check_agents(self, agents: list[Record]) -> Iterator[str]:
        for agent in agents:
            name = agent["name"]
            if agent["mailbox"]:
                entry = (agent["mailbox"], name)
                if entry not in self._agents_by_mailbox:
                    yield f"agent {name!r}: it is not found by its mailbox"
                self._agents_by_mailbox.discard(entry)
            if agent["armed"]:
                if (agent["armed"], name) not in self._agent_timers:
                    yield f"agent {name!r}: its timer is missing"
                self._agent_timers.discard((agent["armed"], name))
            if agent["ttl"] and not 0 < agent["armed"] <= agent["seen_ms"] + 1000 * agent["ttl"]:
                yield f"agent {name!r}: it will not be removed when its ttl is over"
        for _, name in sorted(self._agents_by_mailbox):
            yield f"agent {name!r}: it is entered under a mailbox that it does not have"
        for due, name in sorted(self._agent_timers):
            yield f"agent {name!r}: a timer at {due} is not its own"

    def _check_mailbox(self, mailbox: "_Mailbox") -> Iterator[str]:
        incarnation = mailbox.incarnation
        address = self._addresses.pop(incarnation, None)
        if address is None:
            yield f"mailbox {incarnation}: no address leads to it"
        if incarnation >= self._next_incarnation:
            yield f"mailbox {incarnation}: its number has not been given yet"
        problems = list(mailbox.problems())
        fixed, state = mailbox.fixed, mailbox.state
        if fixed is not None and address is not None and fixed["mail_address"] != address:
            problems.append("it has another address than the one that leads to it")
        if state is not None:
            queues = (
                ("timers", "armed_timer", self._timers),
                ("cleaning", "armed_cleaning", self._cleanings),
            )
            for name, field, queue in queues:
                armed = state[field]
                if armed is not None and (armed, incarnation) not in queue:
                    problems.append(f"it is armed for {armed}, but not entered in the queue of {name}")
                queue.discard((armed, incarnation))
        for problem in problems:
            yield f"mailbox {incarnation}: {problem}"


class _Segment:
    """Which messages of a segment are there."""

    __slots__ = (
        "count",
        "create_ms",
        "expiries",
        "first_id",
        "gone",
        "has_payloads",
        "ids",
        "keys",
        "lane",
        "sizes",
    )

    def __init__(self, record: Record) -> None:
        self.lane: int = record["lane"]
        self.first_id: int = record["first_id"]
        self.create_ms: int = record["create_ms"]
        self.gone: set[int] = set()
        run = record.get("payloads")
        self.has_payloads = run is not None
        self.ids: Any
        if run is not None:
            self.ids = range(self.first_id, self.first_id + len(run))
            self.sizes = [len(text) // 4 * 3 - text[-2:].count("=") for text in run]
            self.expiries: dict[int, int] = {}
            self.keys: dict[str, int] = {}
        else:
            messages = record["messages"]
            self.ids = [message["msg_id"] for message in messages]
            self.sizes = [
                len(m["headers"].encode()) + len(m["payload"]) // 4 * 3 - m["payload"][-2:].count("=")
                for m in messages
            ]
            self.expiries = {m["msg_id"]: m["expires_ms"] for m in messages if m.get("expires_ms")}
            self.keys = {m["key"]: m["msg_id"] for m in messages if m.get("key")}
        self.count: int = record["count"]

    def problems(self, record: Record) -> Iterator[str]:
        where = f"segment {self.first_id} of lane {self.lane}"
        if self.count != len(self.ids) or not self.ids:
            yield f"{where}: it says {self.count} messages and has {len(self.ids)}"
        if any(after <= before for before, after in zip(self.ids, self.ids[1:], strict=False)):
            yield f"{where}: its ids do not ascend"
        if self.ids and self.ids[0] < self.first_id:
            yield f"{where}: it begins with message {self.ids[0]}"
        earliest = min(self.expiries.values(), default=0)
        if earliest and not 0 < record["earliest_expiry"] <= earliest:
            yield f"{where}: a message expires before it says so"

    def living(self) -> Iterator[int]:
        return (msg_id for at, msg_id in enumerate(self.ids) if at not in self.gone)

    def has(self, msg_id: int) -> bool:
        at = bisect_right(self.ids, msg_id) - 1
        return at >= 0 and self.ids[at] == msg_id and at not in self.gone


class _Mailbox:
    """What the records of one mailbox say, taken in one after the other."""

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.fixed: Record | None = None
        self.state: Record | None = None
        self.segments: tuple[list[_Segment], list[_Segment], list[_Segment]] = ([], [], [])
        self.of_kind: dict[str, list[Record]] = {}
        self._problems: list[str] = []

    def add(self, record: Record) -> None:
        kind = record["kind"]
        if kind == "mailbox":
            self.fixed = record
        elif kind == "mailbox_state":
            self.state = record
        elif kind == "segment":
            segment = _Segment(record)
            self.segments[segment.lane].append(segment)
            self._problems += segment.problems(record)
        elif kind == "gone":
            self._add_gone(record)
        else:
            self.of_kind.setdefault(kind, []).append(record)

    def _add_gone(self, record: Record) -> None:
        lane, positions = self.segments[record["lane"]], record["positions"]
        where = f"segment {record['first_id']} of lane {record['lane']}"
        if not lane or lane[-1].first_id != record["first_id"]:
            self._problems.append(f"{where}: only marks of gone messages are there")
            return
        lane[-1].gone = set(positions)
        left = len(lane[-1].ids) - len(positions)
        if not positions or positions[-1] >= len(lane[-1].ids) or 2 * left <= len(lane[-1].ids):
            self._problems.append(f"{where}: {len(positions)} marks of gone messages do not fit it")

    def records(self, kind: str) -> list[Record]:
        return self.of_kind.get(kind, [])

    def _in_group(self, kind: str, number: int) -> list[Record]:
        """The records of a kind of one group; they lie together."""
        records = self.records(kind)
        first = bisect_left(records, number, key=_GROUP)
        return records[first : bisect_right(records, number, first, key=_GROUP)]

    def has(self, lane: int, msg_id: int) -> bool:
        """Whether a message is there."""
        segments = self.segments[lane]
        at = bisect_right(segments, msg_id, key=lambda segment: segment.first_id) - 1
        return at >= 0 and segments[at].has(msg_id)

    def problems(self) -> Iterator[str]:
        yield from self._problems
        if self.fixed is None or self.state is None:
            yield "its record is missing"
            return
        yield from self._check_messages(self.state)
        yield from self._check_counters(self.state)
        yield from self._check_queues(self.fixed, self.state)
        yield from self._check_keys(self.state)
        yield from self._check_groups(self.state)

    def _check_messages(self, state: Record) -> Iterator[str]:
        for lane in _LANES:
            last = -1
            create_ms = 0
            for segment in self.segments[lane]:
                if segment.ids and segment.ids[0] <= last:
                    yield f"segment {segment.first_id} of lane {lane}: it overlaps the one before"
                if segment.create_ms < create_ms:
                    yield f"segment {segment.first_id} of lane {lane}: it is older than the one before"
                create_ms = segment.create_ms
                last = segment.ids[-1] if segment.ids else last
            if last > state["last_ids"][lane]:
                yield f"lane {lane}: message {last} is there, the last id given is {state['last_ids'][lane]}"
        if max(state["last_ids"]) >= state["next_id"]:
            yield f"message {max(state['last_ids'])} is there, the next id is {state['next_id']}"
        lanes = [(msg_id for s in segments for msg_id in s.living()) for segments in self.segments]
        before = -1
        for msg_id in heapq.merge(*lanes):
            if msg_id == before:
                yield f"message {msg_id} is there twice"
            before = msg_id

    def _check_counters(self, state: Record) -> Iterator[str]:
        living = [sum(len(s.ids) - len(s.gone) for s in segments) for segments in self.segments]
        size = sum(
            size
            for segments in self.segments
            for segment in segments
            for at, size in enumerate(segment.sizes)
            if at not in segment.gone
        )
        delayed = [record for record in self.records("mailbox_timer") if record["what"] == "delay_ends"]
        delayed_size = sum(
            len(r["headers"].encode()) + len(r["payload"]) // 4 * 3 - r["payload"][-2:].count("=")
            for r in delayed
        )
        counted = {
            "messages": living,
            "bytes": size,
            "delayed": len(delayed),
            "delayed_bytes": delayed_size,
            "dedup_ids": len(self.records("dedup")),
            "groups": len(self.records("group")),
        }
        for name, count in counted.items():
            if state[name] != count:
                yield f"{name}: it says {state[name]}, there are {count}"
        numbers = [
            r["number"] for kind in ("lease", "mailbox_timer", "mailbox_cleaning") for r in self.records(kind)
        ]
        if max(numbers, default=0) >= state["next_number"]:
            yield f"number {max(numbers)} is in use, the next is {state['next_number']}"

    def _check_queues(self, fixed: Record, state: Record) -> Iterator[str]:
        timers, cleanings = self.records("mailbox_timer"), self.records("mailbox_cleaning")
        armed = state["armed_timer"]
        if timers and (armed is None or armed > timers[0]["due"]):
            yield f"a timer at {timers[0]['due']} would run late: it is armed for {armed}"
        armed = state["armed_cleaning"]
        if cleanings and (armed is None or armed >= cleanings[0]["due"] + CLEANING_GRAIN_MS):
            yield f"cleaning at {cleanings[0]['due']} would be late: it is armed for {armed}"
        ends = [record["due"] for record in timers if record["what"] == "mailbox_ends"]
        expected = [fixed["created_ms"] + 1000 * fixed["ttl"]] if fixed["ttl"] else []
        if ends != expected:
            yield f"its end is planned for {ends}, its ttl says {expected}"
        leases = {(r["deadline"], r["number"]): r["group_number"] for r in self.records("lease")}
        for record in timers:
            if record["what"] != "lease_ends":
                continue
            group = leases.pop((record["due"], record["number"]), None)
            if group != record["group_number"]:
                yield f"timer {record['number']} ends a lease that is not there"
        for deadline, number in leases:
            yield f"lease {number} would never end: it has no timer at {deadline}"
        yield from self._check_cleaning(cleanings)

    def _check_cleaning(self, cleanings: list[Record]) -> Iterator[str]:
        planned: set[tuple[int, int, int]] = set()
        forgotten: Counter[str] = Counter()
        for record in cleanings:
            if record["what"] == "expired":
                for lane, name in enumerate(("critical", "urgent", "normal")):
                    planned.update((lane, msg_id, record["due"]) for msg_id in record[name])
            else:
                for dedup_id in record["ids"]:
                    forgotten[dedup_id] = max(forgotten[dedup_id], record["due"])
        for segments in self.segments:
            for segment in segments:
                for msg_id, expiry in segment.expiries.items():
                    if segment.has(msg_id) and (segment.lane, msg_id, expiry) not in planned:
                        yield f"message {msg_id} expires at {expiry} and would never be cleaned up"
        for record in self.records("dedup"):
            if forgotten[record["id"]] < record["until"]:
                yield f"a dedup-id of {record['until']} would never be forgotten"

    def _check_keys(self, state: Record) -> Iterator[str]:
        newest = {}
        for record in self.records("compaction"):
            newest[record["key"]] = record["msg_id"]
            if not self.has(record["lane"], record["msg_id"]):
                yield f"the newest message {record['msg_id']} of a key is not there"
        for segments in self.segments:
            for segment in segments:
                for key, msg_id in segment.keys.items():
                    if segment.has(msg_id) and newest.get(key) != msg_id:
                        yield f"message {msg_id} has a key, but is not the newest of it"
        for record in self.records("evictable") if state["evictable_known"] else ():
            if not self.has(record["lane"], record["msg_id"]):
                yield f"message {record['msg_id']} may be evicted, but is not there"

    def _check_groups(self, state: Record) -> Iterator[str]:
        groups: dict[int, Record] = {}
        for group in self.records("group"):
            number = group["group_number"]
            if number in groups or number >= state["next_group"]:
                yield f"group {number}: its number is not its own"
            groups[number] = group
            if min(group["cursors"]) < group["start"]:
                yield f"group {number}: it stands before its start"
        for kind in ("lease", "redelivery", "confirmed"):
            for number in sorted({record["group_number"] for record in self.records(kind)} - groups.keys()):
                yield f"group {number}: it is gone, but has records of kind {kind}"
        for number, group in groups.items():
            for problem in self._check_group(group, state["next_id"]):
                yield f"group {number}: {problem}"

    def _check_group(self, group: Record, next_id: int) -> Iterator[str]:
        number, start, cursors = group["group_number"], group["start"], group["cursors"]
        hidden: dict[int, int] = {}
        for record in self._in_group("lease", number):
            for msg_id, packed in _lease_entries(record):
                if msg_id in hidden:
                    yield f"message {msg_id} is in two leases"
                hidden[msg_id] = packed & 3
                lane = packed & 3
                if lane > 2 or not start <= msg_id < min(cursors[lane], next_id):
                    yield f"message {msg_id} is leased without having been delivered"
        for record in self._in_group("redelivery", number):
            lane, msg_id = record["lane"], record["msg_id"]
            if not group["has_redeliveries"][lane]:
                yield f"message {msg_id} comes again, but lane {lane} says none does"
            if msg_id in hidden:
                yield f"message {msg_id} is leased, and comes again"
            if not start <= msg_id < cursors[lane]:
                yield f"message {msg_id} comes again without having been delivered"
        last = dict.fromkeys(_LANES, -1)
        for record in self._in_group("confirmed", number):
            lane, first = record["lane"], record["first_id"]
            if not group["has_confirmed"][lane]:
                yield f"messages from {first} on are confirmed, but lane {lane} says none is"
            if not last[lane] < first <= record["last_id"] < next_id:
                yield f"the interval of confirmed messages from {first} to {record['last_id']} can't be"
            if first < cursors[lane] and record["last_id"] >= start:
                yield f"the interval from {first} to {record['last_id']} lies before {cursors[lane]}"
            last[lane] = record["last_id"]


def _lease_entries(record: Record) -> Iterable[tuple[int, int]]:
    if "run" in record:
        first, count, packed = record["run"]
        return ((msg_id, packed) for msg_id in range(first, first + count))
    return ((msg_id, packed) for msg_id, packed in record["messages"])
