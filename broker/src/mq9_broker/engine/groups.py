"""Consumer groups: where they stand in each lane, what is out on lease, what comes again, what is confirmed.

Per lane everything before the cursor that is neither held by a lease record nor in the redelivery set is
confirmed (or gone); what is confirmed from the cursor on, or before the group's start, is kept as intervals.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from mq9_broker.engine.keys import (
    CONFIRMED,
    EVICTABLE,
    GROUP,
    LANE_BYTES,
    LEASE,
    MAX_U64,
    REDELIVERY,
    pack_u64,
    unpack_u64,
)
from mq9_broker.engine.mailbox import TIMER_LEASE_ENDS
from mq9_broker.store.sorted_map import end_of_prefix

if TYPE_CHECKING:
    from mq9_broker.engine.mailbox import Mailbox
    from mq9_broker.engine.state import State

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_decode_record = msgspec.msgpack.Decoder(tuple[int, int, bool, dict[int, int] | tuple[int, int, int]]).decode

# Ids whose holders share a dict: small dicts, because a huge one stops everything while it grows.
_BUCKET_BITS: Final = 12
# The same for runs; with at least so many ids in a run, few of them lie in one bucket.
_RUN_BITS: Final = 9
_LEAST_RUN: Final = 16
_FEW_KEYS: Final = 16


class LeaseRecord:
    """Messages of a group that are hidden until the same moment: out on lease, or given back with a delay.

    The usual batch, consecutive ids all delivered for the same time, is a run until part of it is taken
    out.
    """

    __slots__ = ("_entries", "deadline", "leased", "number", "packed", "run", "token")

    def __init__(
        self, number: int, token: int, deadline: int, leased: bool, content: "dict[int, int] | RunContent"
    ) -> None:
        self.number = number
        """Names the record in its mailbox, and its timer."""
        self.token = token
        """The number of the FETCH's record; RENEW splits records, the lease stays the same."""
        self.deadline = deadline
        self.leased = leased
        """False: given back with a delay."""
        self.run: range | None = None
        """Its ids, if they are a run."""
        self.packed = 0
        self._entries: dict[int, int] | None = None
        if isinstance(content, dict):
            self._entries = content
        else:
            first, count, self.packed = content
            self.run = range(first, first + count)

    def __len__(self) -> int:
        return len(self.entries if self.run is None else self.run)

    @property
    def entries(self) -> dict[int, int]:
        """msg_id -> 4 x leased deliveries so far + lane."""
        entries = self._entries
        if entries is None:
            entries = self._entries = dict.fromkeys(self.run or (), self.packed)
        return entries

    def content(self) -> "dict[int, int] | RunContent":
        """What is stored of its messages."""
        run = self.run
        return self.entries if run is None else (run[0], len(run), self.packed)

    def holds_exactly(self, msg_ids: tuple[int, ...] | range) -> bool:
        """Tells whether these are its messages, all of them and nothing else."""
        run = self.run
        if run is not None and isinstance(msg_ids, range):
            return run == msg_ids
        if run is None:
            return len(msg_ids) == len(self.entries) and self.entries.keys() == set(msg_ids)
        return len(msg_ids) == len(run) and (msg_ids == tuple(run) or set(msg_ids) == set(run))


#: (first id, how many, what all of them have in `LeaseRecord.entries`)
RunContent: TypeAlias = tuple[int, int, int]


def run_of(msg_ids: Sequence[int], packed: int) -> RunContent | None:
    """A lease record's content, if these ids (ascending) are a run that is worth it."""
    count = len(msg_ids)
    is_run = count >= _LEAST_RUN and msg_ids[-1] - msg_ids[0] + 1 == count
    return (msg_ids[0], count, packed) if is_run else None


class Group:
    """One consumer group of one mailbox."""

    __slots__ = (
        "changed",
        "cursors",
        "from_time",
        "gid",
        "holders",
        "intervals",
        "jumps",
        "key",
        "lease_prefix",
        "name",
        "prefix",
        "records",
        "redeliveries",
        "runs",
        "start",
    )

    def __init__(self, mailbox: "Mailbox", name: str, record: tuple[Any, ...]) -> None:
        self.gid, self.start, self.from_time, cursors, redeliveries, intervals = record
        self.name = name
        self.cursors: list[int] = list(cursors)
        """Per lane: the next id never delivered under a lease."""
        self.redeliveries: list[bool] = list(redeliveries)
        """Per lane: whether the redelivery set may have entries."""
        self.intervals: list[bool] = list(intervals)
        """Per lane: whether there may be intervals of confirmed ids."""
        self.changed = False
        self.prefix = mailbox.prefix
        self.key = mailbox.prefix + GROUP + name.encode()
        """Of the group's record."""
        self.lease_prefix = mailbox.prefix + LEASE + pack_u64(self.gid)
        self.holders: dict[int, dict[int, LeaseRecord]] | None = None
        """By id >> _BUCKET_BITS: id -> the record that hides it, without runs. None = not read yet."""
        self.runs: dict[int, list[LeaseRecord]] = {}
        """By id >> _RUN_BITS: the records that are runs with ids there."""
        self.records: dict[int, dict[int, LeaseRecord]] = {}
        """By number >> _BUCKET_BITS: number -> record."""
        self.jumps: list[dict[int, int]] = [{}, {}, {}]
        """Per lane: where a long stretch begins that is confirmed or gone for good -> where it ends."""

    def record(self) -> bytes:
        """The group's record."""
        return _encode(
            (self.gid, self.start, self.from_time, self.cursors, self.redeliveries, self.intervals)
        )

    def touch(self, state: "State", mailbox: "Mailbox") -> None:
        """Notes that the group's record has to be written."""
        if not self.changed:
            self.changed = True
            mailbox.changed_groups.append(self)
            if not mailbox.changed:
                mailbox.touch(state)

    # Lease records

    def load_holders(self, state: "State") -> dict[int, dict[int, LeaseRecord]]:
        """Reads the lease records when that has not been done."""
        holders = self.holders
        if holders is None:
            holders = self.holders = {}
            prefix = self.lease_prefix
            for key, value in state.store.scan(prefix, prefix + MAX_U64):
                self._hold(LeaseRecord(unpack_u64(key[-8:])[0], *_decode_record(value)))
        return holders

    def _hold(self, record: LeaseRecord) -> None:
        self.records.setdefault(record.number >> _BUCKET_BITS, {})[record.number] = record
        run = record.run
        if run is not None:
            for number in range(run[0] >> _RUN_BITS, (run[-1] >> _RUN_BITS) + 1):
                self.runs.setdefault(number, []).append(record)
        else:
            self._hold_entries(record)

    def _hold_entries(self, record: LeaseRecord) -> None:
        holders = self.holders
        if holders is not None:
            first = min(record.entries) >> _BUCKET_BITS
            if first == max(record.entries) >> _BUCKET_BITS:
                holders.setdefault(first, {}).update(dict.fromkeys(record.entries, record))
                return
            for msg_id in record.entries:
                bucket = holders.get(msg_id >> _BUCKET_BITS)
                if bucket is None:
                    bucket = holders[msg_id >> _BUCKET_BITS] = {}
                bucket[msg_id] = record

    def holder(self, state: "State", msg_id: int) -> LeaseRecord | None:
        """The record that hides a message."""
        holders = self.holders
        if holders is None:
            holders = self.load_holders(state)
        for record in self.runs.get(msg_id >> _RUN_BITS, ()):
            if record.run is not None and msg_id in record.run:
                return record
        bucket = holders.get(msg_id >> _BUCKET_BITS)
        return None if bucket is None else bucket.get(msg_id)

    def hides_nothing(self, state: "State") -> bool:
        """Tells whether there is no record at all."""
        if self.holders is None:
            self.load_holders(state)
        return not self.records

    def add_record(self, state: "State", mailbox: "Mailbox", record: LeaseRecord) -> None:
        """Stores a new record and its timer."""
        if self.holders is None:
            self.load_holders(state)
        self._hold(record)
        run = record.run
        content = record.entries if run is None else (run[0], len(run), record.packed)
        value = _encode((record.token, record.deadline, record.leased, content))
        state.store.put(self.lease_prefix + pack_u64(record.number), value)
        mailbox.add_timer(state, record.deadline, record.number, (TIMER_LEASE_ENDS, self.name, self.gid))

    def _put_record(self, state: "State", record: LeaseRecord) -> None:
        value = (record.token, record.deadline, record.leased, record.content())
        state.store.put(self.lease_prefix + pack_u64(record.number), _encode(value))

    def _end_run(self, record: LeaseRecord, *, is_over: bool) -> None:
        """Makes a run a record like others, or takes it away altogether."""
        run = record.run
        if run is None:
            raise ValueError(f"lease record {record.number} is no run")
        for number in range(run[0] >> _RUN_BITS, (run[-1] >> _RUN_BITS) + 1):
            runs = self.runs[number]
            runs.remove(record)
            if not runs:
                del self.runs[number]
        if not is_over:
            self._hold_entries(record)
            record.run = None

    def take(self, state: "State", mailbox: "Mailbox", taken: Mapping[int, Sequence[int]]) -> None:
        """Takes messages out of the records that hide them: record number -> ids, which are all in there."""
        holders = self.holders
        if holders is None:
            holders = self.load_holders(state)
        for number, ids in taken.items():
            numbers = self.records[number >> _BUCKET_BITS]
            record = numbers[number]
            whole = len(ids) == len(record)
            if record.run is not None:
                self._end_run(record, is_over=whole)
            for msg_id in ids if record.run is None else ():
                bucket = holders[msg_id >> _BUCKET_BITS]
                del bucket[msg_id]
                if not bucket:
                    del holders[msg_id >> _BUCKET_BITS]
            if not whole:
                for msg_id in ids:
                    del record.entries[msg_id]
                self._put_record(state, record)
                continue
            state.store.delete(self.lease_prefix + pack_u64(number))
            mailbox.remove_timer(state, record.deadline, number)
            del numbers[number]
            if not numbers:
                del self.records[number >> _BUCKET_BITS]

    def record_of(self, state: "State", number: int) -> LeaseRecord | None:
        """The record with this number."""
        self.load_holders(state)
        return self.records.get(number >> _BUCKET_BITS, {}).get(number)

    def all_records(self, state: "State") -> Iterator[LeaseRecord]:
        """All records, oldest first."""
        self.load_holders(state)
        for bucket in sorted(self.records):
            yield from sorted(self.records[bucket].values(), key=lambda record: record.number)

    # The redelivery set

    def redelivery_key(self, lane: int, msg_id: int) -> bytes:
        """Key of a message that comes again."""
        return self.prefix + REDELIVERY + pack_u64(self.gid) + LANE_BYTES[lane] + pack_u64(msg_id)

    def scan_redeliveries(self, state: "State", lane: int, from_id: int = 0) -> Iterator[tuple[int, int]]:
        """Ascending (msg_id, leased deliveries so far) of what comes again."""
        prefix = self.redelivery_key(lane, 0)[:-8]
        for key, value in state.store.scan(prefix + pack_u64(from_id), prefix + MAX_U64):
            yield unpack_u64(key[-8:])[0], unpack_u64(value)[0]

    def next_redelivery(self, state: "State", lane: int, from_id: int) -> tuple[int, int] | None:
        """The first (msg_id, leased deliveries so far) from an id on."""
        prefix = self.redelivery_key(lane, 0)[:-8]
        return _numbers(state.store.first(prefix + pack_u64(from_id), prefix + MAX_U64))

    def add_redelivery(self, state: "State", lane: int, msg_id: int, count: int) -> None:
        """Lets a message come again."""
        state.store.put(self.redelivery_key(lane, msg_id), pack_u64(count))
        self.redeliveries[lane] = True

    def remove_redelivery(self, state: "State", lane: int, msg_id: int) -> None:
        """Takes a message out of the set."""
        state.store.delete(self.redelivery_key(lane, msg_id))

    def remove_redeliveries(self, state: "State", lane: int, first: int, end: int) -> None:
        """Takes all messages from ``first`` on and before ``end`` out of the set."""
        _delete_all(state, self.redelivery_key(lane, first), self.redelivery_key(lane, end))

    def is_redelivery(self, state: "State", lane: int, msg_id: int) -> bool:
        """Tells whether a message is to come again."""
        if not self.redeliveries[lane]:
            return False
        return state.store.get(self.redelivery_key(lane, msg_id)) is not None

    # Confirmed intervals

    def interval_key(self, lane: int, start: int) -> bytes:
        """Key of an interval of confirmed ids; its value is the last id."""
        return self.prefix + CONFIRMED + pack_u64(self.gid) + LANE_BYTES[lane] + pack_u64(start)

    def interval_around(self, state: "State", lane: int, msg_id: int) -> tuple[int, int] | None:
        """The last interval that begins at ``msg_id`` or before."""
        if not self.intervals[lane]:
            return None
        prefix = self.interval_key(lane, 0)[:-8]
        return _numbers(state.store.last(prefix, prefix + pack_u64(msg_id) + b"\x00"))

    def interval_after(self, state: "State", lane: int, msg_id: int) -> tuple[int, int] | None:
        """The first interval that begins after ``msg_id``."""
        if not self.intervals[lane]:
            return None
        prefix = self.interval_key(lane, 0)[:-8]
        return _numbers(state.store.first(prefix + pack_u64(msg_id + 1), prefix + MAX_U64))

    def next_interval(self, state: "State", lane: int, msg_id: int) -> tuple[int, int] | None:
        """The first interval that ends at ``msg_id`` or after."""
        around = self.interval_around(state, lane, msg_id)
        return around if around and around[1] >= msg_id else self.interval_after(state, lane, msg_id)

    def add_interval(self, state: "State", lane: int, first: int, last: int) -> None:
        """Stores an interval that touches no other."""
        state.store.put(self.interval_key(lane, first), pack_u64(last))
        self.intervals[lane] = True

    def remove_interval(self, state: "State", lane: int, first: int) -> None:
        """Removes an interval."""
        state.store.delete(self.interval_key(lane, first))

    # State of one message

    def is_confirmed(self, state: "State", lane: int, msg_id: int) -> bool:
        """Tells whether the group has confirmed this existing message."""
        around = self.interval_around(state, lane, msg_id)
        if around is not None and around[1] >= msg_id:
            return True
        if not self.start <= msg_id < self.cursors[lane]:
            return False
        return self.holder(state, msg_id) is None and not self.is_redelivery(state, lane, msg_id)

    def move_cursor(self, state: "State", mailbox: "Mailbox", lane: int, cursor: int) -> None:
        """Moves a lane's cursor ahead, over intervals too: what is behind it needs none."""
        if self.intervals[lane]:
            passed = self.next_interval(state, lane, self.cursors[lane])
            around = self.interval_around(state, lane, cursor)
            if around is not None and around[1] >= cursor:
                cursor = around[1] + 1
            if passed is not None and passed[0] < cursor:
                _delete_all(state, self.interval_key(lane, passed[0]), self.interval_key(lane, cursor))
            prefix = self.interval_key(lane, 0)[:-8]
            self.intervals[lane] = state.store.first(prefix, prefix + MAX_U64) is not None
        self.cursors[lane] = cursor
        self.touch(state, mailbox)


def _numbers(found: tuple[bytes, bytes] | None) -> tuple[int, int] | None:
    return None if found is None else (unpack_u64(found[0][-8:])[0], unpack_u64(found[1])[0])


def _delete_all(state: "State", start: bytes, end: bytes) -> None:
    """Deletes keys one by one while they are few: many deleted ranges make a store slow."""
    keys = [key for key, _ in islice(state.store.scan(start, end), _FEW_KEYS + 1)]
    if len(keys) > _FEW_KEYS:
        state.store.delete_range(start, end)
        return
    for key in keys:
        state.store.delete(key)


def find_group(state: "State", mailbox: "Mailbox", name: str) -> Group | None:
    """The mailbox's group of that name."""
    group = mailbox.groups.get(name)
    if group is None and mailbox.group_count:
        record = state.store.get(mailbox.prefix + GROUP + name.encode())
        if record is not None:
            group = mailbox.groups[name] = Group(mailbox, name, tuple(_decode(record)))
    return group


def all_groups(state: "State", mailbox: "Mailbox") -> list[Group]:
    """The mailbox's groups by name in byte order."""
    prefix = mailbox.prefix + GROUP
    keys = [key for key, _ in state.store.scan(prefix, end_of_prefix(prefix))]
    stored = [key[len(prefix) :].decode() for key in keys]
    new = [group.name for group in mailbox.changed_groups]
    groups = (find_group(state, mailbox, name) for name in sorted({*stored, *new}, key=str.encode))
    return [group for group in groups if group is not None]


def start_group(state: "State", mailbox: "Mailbox", name: str, start: int, from_time: int) -> Group:
    """Makes a group new; one of that name must be ended before.

    Args:
        state: The engine's state.
        mailbox: Its mailbox.
        name: Its name.
        start: The first id it may get.
        from_time: Unix seconds that a message's create_time has to reach, 0 when ``start`` says it all.
    """
    number = mailbox.next_group
    mailbox.next_group = number + 1
    record = (number, start, from_time, (start,) * 3, (False,) * 3, (False,) * 3)
    group = mailbox.groups[name] = Group(mailbox, name, record)
    group.holders = {}
    group.touch(state, mailbox)
    mailbox.group_count += 1
    forget_evictable(state, mailbox)
    return group


def end_group(state: "State", mailbox: "Mailbox", group: Group) -> None:
    """Removes a group with all it knows."""
    for record in group.all_records(state):
        mailbox.remove_timer(state, record.deadline, record.number)
    number = pack_u64(group.gid)
    for kind in (LEASE, REDELIVERY, CONFIRMED):
        prefix = mailbox.prefix + kind + number
        if kind == LEASE and not group.records:
            continue
        if kind == REDELIVERY and not any(group.redeliveries):
            continue
        if kind == CONFIRMED and not any(group.intervals):
            continue
        state.store.delete_range(prefix, end_of_prefix(prefix))
    mailbox.group_count -= 1
    del mailbox.groups[group.name]


def resolve_start(state: "State", mailbox: "Mailbox", group: Group) -> None:
    """Fixes the start of a group whose ``from_time`` lay in the future, once it is reached."""
    if group.from_time and state.now // 1000 >= group.from_time:
        group.start = max(group.start, state.segments.first_id_since(mailbox, 1000 * group.from_time))
        group.from_time = 0
        for lane in (0, 1, 2):
            if group.cursors[lane] < group.start:
                _cut_interval(state, group, lane, group.start)
                group.cursors[lane] = group.start
        group.touch(state, mailbox)


def _cut_interval(state: "State", group: Group, lane: int, start: int) -> None:
    """Splits the interval that reaches over ``start``, so that none lies on both sides of a cursor."""
    around = group.interval_around(state, lane, start)
    if around is not None and around[0] < start <= around[1]:
        group.remove_interval(state, lane, around[0])
        group.add_interval(state, lane, around[0], start - 1)
        group.add_interval(state, lane, start, around[1])


def note_confirmed(state: "State", mailbox: "Mailbox", group: Group, lane: int, ids: Iterable[int]) -> None:
    """Enters messages that now every group has confirmed in the list of what may go when it is full."""
    if not mailbox.evictable_known:
        return
    others = (
        [other for other in all_groups(state, mailbox) if other is not group]
        if mailbox.group_count > 1
        else []
    )
    for msg_id in ids:
        if all(other.is_confirmed(state, lane, msg_id) for other in others):
            state.store.put(mailbox.prefix + EVICTABLE + pack_u64(msg_id), LANE_BYTES[lane])


def forget_evictable(state: "State", mailbox: "Mailbox") -> None:
    """A new group has confirmed nothing, so nothing is confirmed by all."""
    if mailbox.evictable_known:
        state.store.delete_range(mailbox.prefix + EVICTABLE, mailbox.prefix + EVICTABLE + MAX_U64 + b"\x00")
