"""A mailbox: its records, the messages not yet written, and its queues of timers and cleaning."""

from bisect import bisect_left
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mq9_broker.engine.effects import Deliverable, Effect
from mq9_broker.engine.keys import (
    CLEANING,
    COMPACTION,
    EVICTABLE,
    FIXED,
    MAILBOX_CLEANING,
    MAILBOX_TIMER,
    STATE,
    TIMER,
    mailbox_prefix,
    pack_two,
    pack_u64,
    two_numbers,
    unpack_u64,
)
from mq9_broker.engine.segments import (
    EXPIRY_FIELD,
    KEY_FIELD,
    PLAIN_FIELDS,
    Message,
    Segment,
    lane_prefixes,
    message_size,
)

if TYPE_CHECKING:
    from mq9_broker.engine.groups import Group
    from mq9_broker.engine.state import State

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_ID: Final = itemgetter(0)

# What falls due in a mailbox's timer queue: [kind, ...].
TIMER_MAILBOX_ENDS: Final = 0
TIMER_LEASE_ENDS: Final = 1
TIMER_DELAY_ENDS: Final = 2

# What is cleaned up some time after it fell due: [kind, ...].
CLEAN_EXPIRED: Final = 0
CLEAN_DEDUP: Final = 1
#: Cleaning is collected for this long, so that it comes in lots.
CLEANING_GRAIN_MS: Final = 1_000

NEVER: Final = 1 << 63


class Mailbox:
    """One mailbox. Up to ``created_ms`` is its fixed record, from there to ``evictable_known`` its state."""

    __slots__ = (
        "_timer_prefix",
        "address",
        "armed_cleaning",
        "armed_timer",
        "bytes_stored",
        "changed",
        "changed_groups",
        "created_ms",
        "dead_letter",
        "dedup_ids",
        "delayed",
        "delayed_bytes",
        "desc",
        "evictable_known",
        "expires_ms",
        "expiring",
        "group_count",
        "groups",
        "incarnation",
        "is_whole",
        "lane_prefixes",
        "last_ids",
        "live",
        "max_deliveries",
        "next_group",
        "next_id",
        "next_number",
        "plain_limit",
        "prefix",
        "recent_segments",
        "sent_effects",
        "state_key",
        "ttl_s",
        "unwritten",
        "unwritten_bytes",
        "written_id",
    )

    address: bytes
    ttl_s: int
    desc: str
    max_deliveries: int
    dead_letter: bytes
    created_ms: int
    next_id: int
    next_number: int
    bytes_stored: int
    delayed: int
    delayed_bytes: int
    dedup_ids: int
    group_count: int
    next_group: int
    armed_timer: int | None
    armed_cleaning: int | None
    evictable_known: bool

    def __init__(
        self, incarnation: int, fixed: tuple[Any, ...], state: tuple[Any, ...], limited: bool
    ) -> None:
        (self.address, self.ttl_s, self.desc, self.max_deliveries, self.dead_letter, self.created_ms) = fixed
        (
            self.next_id,
            self.next_number,
            live,
            last_ids,
            self.bytes_stored,
            self.delayed,
            self.delayed_bytes,
            self.dedup_ids,
            self.group_count,
            self.next_group,
            self.armed_timer,
            self.armed_cleaning,
            self.evictable_known,
        ) = state
        self.live: list[int] = list(live)
        """Stored messages per lane; expired ones count until they are cleaned up."""
        self.last_ids: list[int] = list(last_ids)
        """The greatest id ever given in each lane, -1 before the first."""
        self.is_whole = sum(self.live) == self.next_id
        """Nothing was ever removed: no segment has gone messages. False = one may have."""
        self.incarnation = incarnation
        self.prefix = mailbox_prefix(incarnation)
        self.state_key = self.prefix + STATE
        self._timer_prefix = self.prefix + MAILBOX_TIMER
        self.lane_prefixes = lane_prefixes(self.prefix)
        self.expires_ms = self.created_ms + 1000 * self.ttl_s if self.ttl_s else NEVER
        self.changed = False
        self.groups: dict[str, Group] = {}
        """Those read so far."""
        self.changed_groups: list[Group] = []
        self.recent_segments: list[Segment | None] = [None, None, None]
        self.unwritten: tuple[list[Message], list[Message], list[Message]] = ([], [], [])
        self.unwritten_bytes = 0
        """Of what went through `add`: exact where there are limits."""
        self.expiring: list[tuple[int, int, int]] = []
        """(expiry, lane, id) of unwritten messages."""
        self.written_id = self.next_id
        self.plain_limit = -1 if limited else NEVER
        """Below this id a SEND without options needs no look at the limits."""
        self.sent_effects: tuple[Effect, ...] = (Deliverable(self.address, incarnation),)

    def fixed_record(self) -> bytes:
        """What never changes."""
        return _encode(
            (self.address, self.ttl_s, self.desc, self.max_deliveries, self.dead_letter, self.created_ms)
        )

    def state_record(self) -> bytes:
        """The counters."""
        return _encode(
            (
                self.next_id,
                self.next_number,
                self.live,
                self.last_ids,
                self.bytes_stored,
                self.delayed,
                self.delayed_bytes,
                self.dedup_ids,
                self.group_count,
                self.next_group,
                self.armed_timer,
                self.armed_cleaning,
                self.evictable_known,
            )
        )

    def touch(self, state: "State") -> None:
        """Notes that the state record or a group has to be written."""
        if not self.changed:
            self.changed = True
            state.changed.append(self)

    def write(self, state: "State") -> None:
        """Brings messages, groups and counters into the transaction."""
        put = state.store.put
        if self.next_id != self.written_id:
            self.write_messages(state)
        if self.changed_groups:
            for group in self.changed_groups:
                group.changed = False
                put(group.key, group.record())
            self.changed_groups.clear()
        put(self.state_key, self.state_record())
        self.changed = False

    def number(self, state: "State") -> int:
        """A number that ascends with every use in this mailbox: lease records, timers."""
        number = self.next_number
        self.next_number = number + 1
        if not self.changed:
            self.touch(state)
        return number

    # Messages

    def add(self, state: "State", lane: int, message: Message) -> None:
        """Appends a message whose id is ``next_id``."""
        msg_id: int = message[0]
        self.next_id = msg_id + 1
        self.unwritten[lane].append(message)
        self.unwritten_bytes += message_size(message)
        if len(message) > PLAIN_FIELDS:
            if message[EXPIRY_FIELD]:
                self.expiring.append((message[EXPIRY_FIELD], lane, msg_id))
            if message[KEY_FIELD]:
                self._replace_key(state, lane, message)
        self.touch(state)

    def _replace_key(self, state: "State", lane: int, message: Message) -> None:
        key = self.prefix + COMPACTION + message[KEY_FIELD].encode()
        older = state.store.get(key)
        if older is not None:
            self.remove(state, older[0], [unpack_u64(older[1:])[0]])
        state.store.put(key, bytes([lane]) + pack_u64(message[0]))

    def write_messages(self, state: "State") -> None:
        """Writes the messages sent since the last time as segments."""
        if self.next_id == self.written_id:
            return
        for lane, messages in enumerate(self.unwritten):
            if messages:
                self.live[lane] += len(messages)
                self.last_ids[lane] = messages[-1][0]
                self.bytes_stored += state.segments.write(self, lane, state.now, messages)
                messages.clear()
        self.written_id = self.next_id
        self.unwritten_bytes = 0
        if self.expiring:
            self._plan_expiry(state)

    def _plan_expiry(self, state: "State") -> None:
        by_due: dict[int, list[tuple[int, int]]] = {}
        for expiry, lane, msg_id in self.expiring:
            by_due.setdefault(expiry, []).append((lane, msg_id))
        self.expiring.clear()
        for expiry, messages in by_due.items():
            lanes: tuple[list[int], list[int], list[int]] = ([], [], [])
            for lane, msg_id in messages:
                lanes[lane].append(msg_id)
            self.add_cleaning(state, expiry, (CLEAN_EXPIRED, *lanes))

    def remove(self, state: "State", lane: int, ids: list[int]) -> list[Message]:
        """Takes messages of one lane away for everybody; ``ids`` ascend. Returns those that were there."""
        self.is_whole = False
        removed: list[Message] = []
        written = bisect_left(ids, self.written_id)
        unwritten = self.unwritten[lane]
        for msg_id in ids[written:]:
            at = bisect_left(unwritten, msg_id, key=_ID)
            if at < len(unwritten) and unwritten[at][0] == msg_id:
                removed.append(unwritten.pop(at))
                self.unwritten_bytes -= message_size(removed[-1])
        stored = state.segments.remove(self, lane, ids[:written])
        self.live[lane] -= len(stored)
        for message in stored:
            self.bytes_stored -= message_size(message)
        removed = stored + removed
        for message in removed:
            if self.evictable_known:
                state.store.delete(self.prefix + EVICTABLE + pack_u64(message[0]))
            if len(message) > PLAIN_FIELDS and message[KEY_FIELD]:
                key = self.prefix + COMPACTION + message[KEY_FIELD].encode()
                newest = state.store.get(key)
                if newest is not None and unpack_u64(newest[1:])[0] == message[0]:
                    state.store.delete(key)
        self.touch(state)
        return removed

    # Timers and cleaning

    def add_timer(self, state: "State", due: int, number: int, value: tuple[Any, ...]) -> None:
        """Lets ``value`` fall due; of equal times the lower number comes first."""
        state.store.put(self._timer_prefix + pack_two(due, number), _encode(value))
        if self.armed_timer is None or due < self.armed_timer:
            self.arm_timer(state, due)

    def remove_timer(self, state: "State", due: int, number: int) -> None:
        """Takes a timer back. What is armed stays armed: a tick too many does no harm."""
        state.store.delete(self._timer_prefix + pack_two(due, number))

    def arm_timer(self, state: "State", due: int | None) -> None:
        """Enters the mailbox in the engine's queue of timers at ``due``, or takes it out."""
        if due == self.armed_timer:
            return
        if self.armed_timer is not None:
            state.store.delete(two_numbers(TIMER, self.armed_timer, self.incarnation))
        if due is not None:
            state.store.put(two_numbers(TIMER, due, self.incarnation), b"")
            state.expect_timer(due)
        self.armed_timer = due
        self.touch(state)

    def add_cleaning(self, state: "State", due: int, value: tuple[Any, ...]) -> None:
        """Plans cleaning at ``due`` or soon after."""
        key = two_numbers(self.prefix + MAILBOX_CLEANING, due, self.number(state))
        state.store.put(key, _encode(value))
        if self.armed_cleaning is None or due < self.armed_cleaning:
            self.arm_cleaning(state, due)

    def arm_cleaning(self, state: "State", due: int | None) -> None:
        """Enters the mailbox in the engine's queue of cleaning soon after ``due``, or takes it out."""
        if due is not None:
            due = -(-due // CLEANING_GRAIN_MS) * CLEANING_GRAIN_MS
        if due == self.armed_cleaning:
            return
        if self.armed_cleaning is not None:
            state.store.delete(two_numbers(CLEANING, self.armed_cleaning, self.incarnation))
        if due is not None:
            key = two_numbers(CLEANING, due, self.incarnation)
            state.store.put(key, b"")
            state.first_cleaning = min(state.first_cleaning, key)
            state.expect_timer(due)
        self.armed_cleaning = due
        self.touch(state)


_NEW_STATE: Final = (0, 1, (0, 0, 0), (-1, -1, -1), 0, 0, 0, 0, 0, 1, None, None, True)


def load_mailbox(state: "State", incarnation: int) -> Mailbox:
    """Reads a living mailbox from the store."""
    prefix = mailbox_prefix(incarnation)
    fixed = state.store.get(prefix + FIXED)
    counters = state.store.get(prefix + STATE)
    if fixed is None or counters is None:
        raise LookupError(f"store has no record of mailbox incarnation {incarnation}")
    return Mailbox(incarnation, tuple(_decode(fixed)), tuple(_decode(counters)), _looks_at_limits(state))


def address_of(state: "State", incarnation: int) -> bytes:
    """The address of a living mailbox."""
    fixed = state.store.get(mailbox_prefix(incarnation) + FIXED)
    if fixed is None:
        raise LookupError(f"store has no record of mailbox incarnation {incarnation}")
    address: bytes = _decode(fixed)[0]
    return address


def new_mailbox(state: "State", fixed: tuple[Any, ...]) -> Mailbox:
    """Makes an empty mailbox with this fixed record."""
    mailbox = Mailbox(state.next_incarnation(), fixed, _NEW_STATE, _looks_at_limits(state))
    mailbox.evictable_known = is_limited(state)
    state.store.put(mailbox.prefix + FIXED, mailbox.fixed_record())
    state.add_mailbox(mailbox)
    mailbox.touch(state)
    if mailbox.ttl_s:
        mailbox.add_timer(state, mailbox.expires_ms, 0, (TIMER_MAILBOX_ENDS,))
    return mailbox


def is_limited(state: "State") -> bool:
    """Tells whether mailboxes have a bound of messages or bytes."""
    return bool(state.limits.max_messages or state.limits.max_bytes)


def _looks_at_limits(state: "State") -> bool:
    """Tells whether every SEND has to look at a limit."""
    return is_limited(state) or bool(state.limits.max_message)
