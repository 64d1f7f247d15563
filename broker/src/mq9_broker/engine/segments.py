"""Messages as the store keeps them: segments of messages that were stored together, per lane.

A segment is written once; a second key beside it says which of its messages are gone. When half of them are,
the segment is written anew without them, so what is stored, and what a reader steps over, stays within twice
the living messages.

Most segments are runs: consecutive ids, and nothing but payloads. A run is stored and kept as the JSON array
of its payloads in base64, of which a FETCH takes slices: a third more room, a third less work at FETCH. It
becomes a list of messages only where somebody has to look at single ones.
"""

from binascii import a2b_base64
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from itertools import islice
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

from mq9_broker.engine.keys import (
    AFTER_SUFFIXES,
    GONE_SUFFIX,
    LANE_BYTES,
    MAX_U64,
    MESSAGES_SUFFIX,
    SEGMENT,
    pack_u64,
)
from mq9_broker.engine.transaction import Transaction

if TYPE_CHECKING:
    from mq9_broker.engine.mailbox import Mailbox

#: ``(msg_id, headers, payload)``, or with options ``(msg_id, headers, payload, key, tags, expires_at_ms)``.
#: key "" and expires_at_ms 0 mean none.
Message: TypeAlias = tuple[Any, ...]
PLAIN_FIELDS: Final = 3
KEY_FIELD: Final = 3
TAGS_FIELD: Final = 4
EXPIRY_FIELD: Final = 5

SEGMENT_MESSAGES: Final = 256
SEGMENT_BYTES: Final = 65_536
# Little, on purpose: reading a segment from memory costs less than touching one that has left the processor's
# caches, and every segment that is dropped has to be touched once more.
_LEAST_CACHE: Final = 8_388_608
_LEAST_SEGMENTS: Final = 144
# A larger cache has at most one segment for each so many of its bytes: small ones weigh more than they hold.
_BYTES_A_SEGMENT: Final = 16_384
_DROPPED_SEGMENTS: Final = 16

# create_time_ms, messages, the earliest expiry (0 = none expires), whether it is a run
_HEADER: Final = Struct(">QIQ?")
_encode = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple]).decode  # type: ignore[type-arg]
_decode_run = msgspec.json.Decoder(list[bytes]).decode


def is_expired(message: Message, now: int) -> bool:
    """Tells whether the message's ttl is over."""
    return len(message) > PLAIN_FIELDS and 0 < message[EXPIRY_FIELD] <= now


def message_size(message: Message) -> int:
    """Bytes that count towards a mailbox's limit."""
    return len(message[1]) + len(message[2])


class Segment:
    """Messages of one lane that have one create_time, in order; gone ones are None."""

    __slots__ = (
        "_messages",
        "_texts",
        "create_ms",
        "earliest_expiry",
        "first_id",
        "ids",
        "is_cached",
        "key",
        "live",
        "run_json",
        "size",
    )

    def __init__(
        self, key: bytes, create_ms: int, earliest_expiry: int, messages: list[Any], size: int
    ) -> None:
        """Messages of any kind; `run` makes one of payloads."""
        self.key = key
        """Without its suffix."""
        self.first_id = first_id_of(key)
        """In its key: its messages have this id or greater ones."""
        self.is_cached = False
        """Whether `Segments` has this very object."""
        self.create_ms = create_ms
        self.earliest_expiry = earliest_expiry
        self._messages: list[Message | None] | None = messages
        # None is gone here: `Segments` marks the gone ones afterwards.
        self.ids: Sequence[int] = [message[0] for message in messages]
        """Of all messages, gone ones included."""
        self.run_json: bytes | None = None
        """Of a run of which nothing is gone: the JSON array of its payloads."""
        self._texts: list[bytes] | None = None
        self.live = len(messages)
        self.size = size

    @classmethod
    def run(cls, key: bytes, create_ms: int, ids: range, run_json: bytes) -> "Segment":
        """Messages with consecutive ids and nothing but payloads."""
        segment = cls(key, create_ms, 0, [], len(run_json))
        segment.ids = ids
        segment.live = len(ids)
        segment.run_json = run_json
        segment._messages = None
        return segment

    @property
    def messages(self) -> list[Message | None]:
        """All messages; gone ones are None."""
        messages = self._messages
        if messages is None:
            payloads = _decode_run(self.run_json or b"[]")
            messages = self._messages = [
                (i, b"", payload) for i, payload in zip(self.ids, payloads, strict=True)
            ]
        return messages

    def texts(self) -> list[bytes]:
        """The payloads of a run as JSON strings."""
        texts = self._texts
        if texts is None:
            # Base64 has no commas.
            texts = self._texts = (self.run_json or b"[]")[1:-1].split(b",")
        return texts

    def take_out(self, index: int) -> None:
        """Marks a message as gone."""
        self.messages[index] = None
        self.run_json = self._texts = None
        self.live -= 1

    def thin_out(self) -> None:
        """Forgets the gone messages."""
        left = [
            (i, message) for i, message in zip(self.ids, self.messages, strict=True) if message is not None
        ]
        self.ids = [i for i, _ in left]
        self._messages = [message for _, message in left]

    def index_at_or_after(self, msg_id: int) -> int:
        """Position of the first message with this id or a greater one."""
        ids = self.ids
        offset = msg_id - ids[0]
        if offset <= 0:
            return 0
        if offset < len(ids) and ids[offset] == msg_id:
            return offset
        return bisect_left(ids, msg_id)

    def get(self, msg_id: int) -> Message | None:
        """The message, None when it is gone or not in here."""
        index = self.index_at_or_after(msg_id)
        if index < len(self.ids) and self.ids[index] == msg_id:
            if self._messages is None:
                return (msg_id, b"", a2b_base64(self.texts()[index][1:-1]))
            return self.messages[index]
        return None


class Tally(NamedTuple):
    """What there is to count of a segment."""

    first_id: int
    """In its key: its messages have this id or greater ones."""
    live: int
    """Messages that are not gone; they may be expired."""
    earliest_expiry: int
    """0 = none of them expires."""


class Segments:
    """Finds, writes and thins out segments; keeps the decoded form of some.

    Args:
        transaction: Where they are.
        cache: Bytes of those that are kept, 8 MiB at least.
    """

    def __init__(self, transaction: Transaction, cache: int) -> None:
        self._store = transaction
        is_large = cache > _LEAST_CACHE
        self._most_bytes = cache if is_large else _LEAST_CACHE
        self._most_segments = cache // _BYTES_A_SEGMENT if is_large else _LEAST_SEGMENTS
        self._cached: dict[bytes, Segment] = {}
        self._cached_bytes = 0
        self._cached_ids: dict[bytes, list[int]] = {}
        """Where the cached segments of a lane begin, ascending; by the lane's prefix."""

    def forget(self) -> None:
        """Empties the cache."""
        for segment in self._cached.values():
            segment.is_cached = False
        self._cached.clear()
        self._cached_bytes = 0
        self._cached_ids.clear()

    def write(self, mailbox: "Mailbox", lane: int, create_ms: int, messages: list[Message]) -> int:
        """Stores new messages, ascending, behind all others of the lane; returns their size."""
        if len(messages) > SEGMENT_MESSAGES:
            starts = range(0, len(messages), SEGMENT_MESSAGES)
            return sum(
                self.write(mailbox, lane, create_ms, messages[start : start + SEGMENT_MESSAGES])
                for start in starts
            )
        if max(map(len, messages)) == PLAIN_FIELDS:
            # The usual case: a few operations on whole lists, not a loop over messages.
            ids, headers, payloads = zip(*messages, strict=True)
            size = sum(map(len, payloads))
            if size <= SEGMENT_BYTES and not any(headers) and ids[-1] - ids[0] + 1 == len(ids):
                key = mailbox.lane_prefixes[lane] + pack_u64(ids[0])
                run = Segment.run(key, create_ms, range(ids[0], ids[-1] + 1), _encode_json(payloads))
                self._add(run)
                return size
        total = 0
        start = 0
        size = 0
        for end, message in enumerate(messages, 1):
            size += len(message[1]) + len(message[2])
            if size >= SEGMENT_BYTES or end == len(messages):
                part = messages[start:end]
                expiries = [m[EXPIRY_FIELD] for m in part if len(m) > PLAIN_FIELDS and m[EXPIRY_FIELD]]
                key = mailbox.lane_prefixes[lane] + pack_u64(part[0][0])
                self._add(Segment(key, create_ms, min(expiries, default=0), part, size))
                total += size
                start = end
                size = 0
        return total

    def _add(self, segment: Segment) -> None:
        self._put(segment)
        self._remember(segment)

    def _put(self, segment: Segment) -> None:
        content = segment.run_json
        head = _HEADER.pack(segment.create_ms, segment.live, segment.earliest_expiry, content is not None)
        if content is None:
            content = _encode(segment.messages)
        self._store.put(segment.key + MESSAGES_SUFFIX, head + content)

    def _remember(self, segment: Segment) -> None:
        """Puts a segment that is not in the cache into it."""
        cached = self._cached
        key, first_id = segment.key, segment.first_id
        segment.is_cached = True
        cached[key] = segment
        self._cached_bytes += segment.size
        prefix = key[:-8]
        ids = self._cached_ids.get(prefix)
        if ids is None:
            self._cached_ids[prefix] = [first_id]
        elif first_id > ids[-1]:
            ids.append(first_id)
        else:
            insort(ids, first_id)
        while len(cached) > self._most_segments or (
            self._cached_bytes > self._most_bytes and len(cached) > 1
        ):
            # Some at a time, for less than one by one; never the new one.
            for oldest in list(islice(cached.values(), min(_DROPPED_SEGMENTS, len(cached) - 1))):
                self._drop(oldest)

    def _drop(self, segment: Segment) -> None:
        """Takes a segment out of the cache."""
        if not segment.is_cached:
            return
        key = segment.key
        segment.is_cached = False
        del self._cached[key]
        self._cached_bytes -= segment.size
        prefix = key[:-8]
        ids = self._cached_ids[prefix]
        if len(ids) == 1:
            del self._cached_ids[prefix]
        elif ids[0] == segment.first_id:
            del ids[0]
        else:
            del ids[bisect_left(ids, segment.first_id)]

    def _find_cached(self, prefix: bytes, msg_id: int) -> Segment | None:
        """The cached segment in whose range of ids a message lies."""
        ids = self._cached_ids.get(prefix)
        at = bisect_right(ids, msg_id) if ids else 0
        if not ids or not at:
            return None
        segment = self._cached[prefix + pack_u64(ids[at - 1])]
        return segment if msg_id <= segment.ids[-1] else None

    def _load(self, mailbox: "Mailbox", key: bytes, value: bytes | None) -> Segment:
        """The segment under ``key``, which exists; ``value`` is its messages' value if it is at hand."""
        segment = self._cached.get(key)
        if segment is not None:
            return segment
        if value is None:
            value = self._store.get(key + MESSAGES_SUFFIX)
            if value is None:
                raise LookupError(f"store has no messages under {key.hex()}, only marks of gone ones")
        create_ms, count, earliest_expiry, is_run = _HEADER.unpack_from(value)
        content = value[_HEADER.size :]
        if is_run:
            first_id = int.from_bytes(key[-8:], "big")
            segment = Segment.run(key, create_ms, range(first_id, first_id + count), content)
        else:
            segment = Segment(key, create_ms, earliest_expiry, _decode(content), len(content))
        marks = None if mailbox.is_whole else self._store.get(key + GONE_SUFFIX)
        if marks is not None:
            gone = int.from_bytes(marks, "little")
            for index in range(len(segment.ids)):
                if gone >> index & 1:
                    segment.take_out(index)
        self._remember(segment)
        return segment

    def floor(self, mailbox: "Mailbox", lane: int, msg_id: int) -> Segment | None:
        """The last segment that begins at ``msg_id`` or before."""
        recent = mailbox.recent_segments[lane]
        if recent is not None:
            if not recent.is_cached:
                mailbox.recent_segments[lane] = None
            elif recent.first_id <= msg_id <= recent.ids[-1]:
                return recent
        prefix = mailbox.lane_prefixes[lane]
        # Whoever reads on is where a segment begins; finding a key costs less than looking for a place.
        key = prefix + pack_u64(msg_id)
        segment = self._cached.get(key)
        if segment is None:
            reads_on = recent is not None and recent.ids[-1] + 1 == msg_id
            segment = None if reads_on else self._find_cached(prefix, msg_id)
            if segment is None:
                value = self._store.get(key + MESSAGES_SUFFIX)
                if value is not None:
                    segment = self._load(mailbox, key, value)
                elif reads_on:
                    segment = self._find_cached(prefix, msg_id)
        if segment is not None:
            mailbox.recent_segments[lane] = segment
            return segment
        found = self._store.last(prefix, prefix + pack_u64(msg_id) + AFTER_SUFFIXES)
        return None if found is None else self._loaded(mailbox, lane, found)

    def after(self, mailbox: "Mailbox", lane: int, key: bytes) -> Segment | None:
        """The first segment behind the one with ``key``."""
        found = self._store.first(
            key + AFTER_SUFFIXES, mailbox.lane_prefixes[lane] + MAX_U64 + AFTER_SUFFIXES
        )
        return None if found is None else self._loaded(mailbox, lane, found)

    def before(self, mailbox: "Mailbox", lane: int, key: bytes) -> Segment | None:
        """The last segment before the one with ``key``."""
        found = self._store.last(mailbox.lane_prefixes[lane], key)
        return None if found is None else self._loaded(mailbox, lane, found)

    def _loaded(self, mailbox: "Mailbox", lane: int, found: tuple[bytes, bytes]) -> Segment:
        key, value = found
        segment = self._load(mailbox, key[:-1], value if key.endswith(MESSAGES_SUFFIX) else None)
        mailbox.recent_segments[lane] = segment
        return segment

    def at_or_after(self, mailbox: "Mailbox", lane: int, msg_id: int) -> Segment | None:
        """The first segment that has a message (gone or not) with this id or a greater one."""
        segment = mailbox.recent_segments[lane]
        if segment is not None and segment.is_cached and segment.first_id <= msg_id <= segment.ids[-1]:
            return segment
        segment = self.floor(mailbox, lane, msg_id)
        if segment is None:
            prefix = mailbox.lane_prefixes[lane]
            found = self._store.first(prefix + pack_u64(msg_id), prefix + MAX_U64 + AFTER_SUFFIXES)
            return None if found is None else self._loaded(mailbox, lane, found)
        return segment if segment.ids[-1] >= msg_id else self.after(mailbox, lane, segment.key)

    def next_id(self, mailbox: "Mailbox", lane: int, msg_id: int) -> int | None:
        """The first message's id at ``msg_id`` or after it that is not gone (it may be expired)."""
        if msg_id > mailbox.last_ids[lane]:
            return None
        segment = self.at_or_after(mailbox, lane, msg_id)
        while segment is not None:
            for index in range(segment.index_at_or_after(msg_id), len(segment.ids)):
                if segment.messages[index] is not None:
                    return segment.ids[index]
            segment = self.after(mailbox, lane, segment.key)
        return None

    def find(self, mailbox: "Mailbox", lane: int, msg_id: int, now: int) -> tuple[Segment, Message] | None:
        """A message of the lane with its segment; None when it is gone, expired or not there."""
        if msg_id > mailbox.last_ids[lane]:
            return None
        segment = self.floor(mailbox, lane, msg_id)
        message = None if segment is None else segment.get(msg_id)
        if segment is None or message is None or is_expired(message, now):
            return None
        return segment, message

    def locate(self, mailbox: "Mailbox", msg_id: int, now: int) -> tuple[int, Segment, Message] | None:
        """The message's lane, segment and self; None when it is gone, expired or not there."""
        for lane in (2, 1, 0):
            found = self.find(mailbox, lane, msg_id, now)
            if found is not None:
                return lane, *found
        return None

    def segment_of(self, mailbox: "Mailbox", msg_id: int, now: int) -> tuple[int, Segment] | None:
        """Like `locate`, without the message."""
        for lane in (2, 1, 0):
            if msg_id > mailbox.last_ids[lane]:
                continue
            segment = self.floor(mailbox, lane, msg_id)
            if segment is None:
                continue
            if segment.run_json is not None:
                if msg_id in segment.ids:
                    return lane, segment
                continue
            message = segment.get(msg_id)
            if message is not None and not is_expired(message, now):
                return lane, segment
        return None

    def remove(self, mailbox: "Mailbox", lane: int, ids: list[int]) -> list[Message]:
        """Takes messages out of the store; ``ids`` ascend. Returns those that were there."""
        removed: list[Message] = []
        position = 0
        while position < len(ids):
            segment = self.floor(mailbox, lane, ids[position])
            if segment is None or ids[position] > segment.ids[-1]:
                position += 1
                continue
            before = segment.live
            last = segment.ids[-1]
            while position < len(ids) and ids[position] <= last:
                index = segment.index_at_or_after(ids[position])
                message = segment.messages[index]
                if segment.ids[index] == ids[position] and message is not None:
                    removed.append(message)
                    segment.take_out(index)
                position += 1
            if segment.live != before:
                self._save_thinned(mailbox, lane, segment)
        return removed

    def _save_thinned(self, mailbox: "Mailbox", lane: int, segment: Segment) -> None:
        if not segment.live:
            self._store.delete(segment.key + MESSAGES_SUFFIX)
            self._store.delete(segment.key + GONE_SUFFIX)
            self._drop(segment)
            mailbox.recent_segments[lane] = None
        elif 2 * segment.live <= len(segment.ids):
            segment.thin_out()
            self._put(segment)
            self._store.delete(segment.key + GONE_SUFFIX)
        else:
            marks = 0
            for index, message in enumerate(segment.messages):
                if message is None:
                    marks |= 1 << index
            self._store.put(
                segment.key + GONE_SUFFIX, marks.to_bytes(len(segment.messages) // 8 + 1, "little")
            )

    def tallies(self, mailbox: "Mailbox", lane: int, msg_id: int) -> Iterator[Tally]:
        """What there is to count of the segments that begin at ``msg_id`` or after, without decoding them."""
        prefix = mailbox.lane_prefixes[lane]
        end = prefix + MAX_U64 + AFTER_SUFFIXES
        tally: Tally | None = None
        for key, value in self._store.scan(prefix + pack_u64(msg_id), end):
            if key.endswith(GONE_SUFFIX):
                if tally is not None:
                    gone = int.from_bytes(value, "little").bit_count()
                    tally = Tally(tally.first_id, tally.live - gone, tally.earliest_expiry)
                continue
            if tally is not None:
                yield tally
            _, count, earliest_expiry, _ = _HEADER.unpack_from(value)
            tally = Tally(first_id_of(key[:-1]), count, earliest_expiry)
        if tally is not None:
            yield tally

    def first_id_since(self, mailbox: "Mailbox", create_ms: int) -> int:
        """The smallest id of what was created at ``create_ms`` or later, else the next id to come."""
        smallest = mailbox.next_id
        for lane in (0, 1, 2):
            low, high = 0, mailbox.last_ids[lane] + 1
            found = None
            while low < high:
                middle = (low + high) // 2
                segment = self.floor(mailbox, lane, middle)
                if segment is None:
                    low = middle + 1
                elif segment.create_ms < create_ms:
                    low = max(middle, segment.ids[-1]) + 1
                else:
                    found = segment.ids[0]
                    high = first_id_of(segment.key)
            if found is not None:
                smallest = min(smallest, found)
        return smallest


def first_id_of(key: bytes) -> int:
    """The id in a segment's key."""
    return int.from_bytes(key[-8:], "big")


def lane_prefixes(mailbox_prefix: bytes) -> tuple[bytes, bytes, bytes]:
    """Prefixes of the three lanes' segments."""
    return (
        mailbox_prefix + SEGMENT + LANE_BYTES[0],
        mailbox_prefix + SEGMENT + LANE_BYTES[1],
        mailbox_prefix + SEGMENT + LANE_BYTES[2],
    )
