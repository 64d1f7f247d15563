"""What the store holds, key by key, as named records that JSON can carry, and back to the very same bytes.

README.md in this folder describes the layout. Of use to tools (dump, inspect, check), not to the engine.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable
from struct import Struct
from typing import Any, Final, NamedTuple

import msgspec

from mq9_broker.engine import keys
from mq9_broker.engine.keys import pack_u64, unpack_u64

#: A record: "kind", then what its key and its value say.
Record = dict[str, Any]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_decode_run = msgspec.json.Decoder(list[str]).decode
_encode_json = msgspec.json.Encoder().encode
_SEGMENT_HEAD: Final = Struct(">QIQ?")


class RecordError(ValueError):
    """A key, a value or a record is not of this format; the message says what."""


# How single values look in a record, and back.


class _Form(NamedTuple):
    show: Callable[[Any], Any]
    read: Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


_ANY: Final = _Form(_same, _same)
#: Bytes that are text: addresses, JSON.
_TEXT: Final = _Form(bytes.decode, str.encode)
_BINARY: Final = _Form(lambda value: b64encode(value).decode(), lambda text: b64decode(text, validate=True))
_OPTIONAL_TEXT: Final = _Form(
    lambda value: None if value is None else value.decode(),
    lambda text: None if text is None else text.encode(),
)

_MESSAGE: Final = ("msg_id", "headers", "payload", "key", "tags", "expires_ms")
_FORMS: Final = {"headers": _TEXT, "payload": _BINARY}


def _show_fields(names: tuple[str, ...], values: Any, forms: dict[str, _Form]) -> Record:
    return {name: forms.get(name, _ANY).show(value) for name, value in zip(names, values, strict=False)}


def _read_fields(names: tuple[str, ...], record: Record, forms: dict[str, _Form]) -> tuple[Any, ...]:
    return tuple(forms.get(name, _ANY).read(record[name]) for name in names if name in record)


# Values.


class _Value(NamedTuple):
    show: Callable[[Record, bytes], Record]
    """(what the key says, value) -> what the value says"""
    read: Callable[[Record], bytes]


def _array(*names: str, **forms: _Form) -> _Value:
    """A MessagePack array with these fields."""

    def show(_: Record, value: bytes) -> Record:
        fields = _decode(value)
        if not isinstance(fields, list) or len(fields) != len(names):
            raise RecordError(f"expected an array of {len(names)}")
        return _show_fields(names, fields, forms)

    return _Value(show, lambda record: _encode(_read_fields(names, record, forms)))


def _number(name: str) -> _Value:
    return _Value(lambda _, value: {name: unpack_u64(value)[0]}, lambda record: pack_u64(record[name]))


def _show_counts(_: Record, value: bytes) -> Record:
    mailboxes, agents = keys.unpack_two(value)
    return {"mailboxes": mailboxes, "agents": agents}


_COUNTS: Final = _Value(
    _show_counts, lambda record: keys.two_numbers(b"", record["mailboxes"], record["agents"])
)


def _show_empty(_: Record, value: bytes) -> Record:
    if value:
        raise RecordError("expected no value")
    return {}


_EMPTY: Final = _Value(_show_empty, lambda _: b"")
_VERSION: Final = _Value(
    lambda _, value: {"version": value.decode()}, lambda record: str(record["version"]).encode()
)
_LANE_VALUE: Final = _Value(lambda _, value: {"lane": value[0]}, lambda record: bytes([record["lane"]]))
_LANE_AND_ID: Final = _Value(
    lambda _, value: {"lane": value[0], "msg_id": unpack_u64(value[1:])[0]},
    lambda record: bytes([record["lane"]]) + pack_u64(record["msg_id"]),
)


def _show_segment(_: Record, value: bytes) -> Record:
    create_ms, count, earliest_expiry, is_run = _SEGMENT_HEAD.unpack_from(value)
    content = value[_SEGMENT_HEAD.size :]
    record: Record = {"create_ms": create_ms, "count": count, "earliest_expiry": earliest_expiry}
    if is_run:
        return record | {"payloads": _decode_run(content)}
    return record | {"messages": [_show_fields(_MESSAGE, message, _FORMS) for message in _decode(content)]}


def _read_segment(record: Record) -> bytes:
    run = record.get("payloads")
    head = (record["create_ms"], record["count"], record["earliest_expiry"], run is not None)
    if run is not None:
        return _SEGMENT_HEAD.pack(*head) + _encode_json(run)
    messages = [_read_fields(_MESSAGE, message, _FORMS) for message in record["messages"]]
    return _SEGMENT_HEAD.pack(*head) + _encode(messages)


def _show_gone(_: Record, value: bytes) -> Record:
    marks = int.from_bytes(value, "little")
    return {"bytes": len(value), "positions": [n for n in range(8 * len(value)) if marks >> n & 1]}


def _read_gone(record: Record) -> bytes:
    marks: int = sum(1 << position for position in record["positions"])
    return marks.to_bytes(record["bytes"], "little")


_TIMERS: Final = {
    0: ("mailbox_ends", ()),
    1: ("lease_ends", ("group_name", "group_number")),
    2: ("delay_ends", ("lane", "headers", "payload", "key", "tags", "expires_ms")),
}
_CLEANINGS: Final = {
    0: ("expired", ("critical", "urgent", "normal")),
    1: ("dedup_ids", ("ids",)),
}


def _one_of(table: dict[int, tuple[str, tuple[str, ...]]]) -> _Value:
    """A MessagePack array that begins with a number, which tells what the rest means."""
    numbers = {name: (number, fields) for number, (name, fields) in table.items()}

    def show(_: Record, value: bytes) -> Record:
        number, *fields = _decode(value)
        if number not in table or len(fields) != len(table[number][1]):
            raise RecordError(f"unknown kind {number}")
        what, names = table[number]
        return {"what": what, **_show_fields(names, fields, _FORMS)}

    def read(record: Record) -> bytes:
        number, names = numbers[record["what"]]
        return _encode((number, *_read_fields(names, record, _FORMS)))

    return _Value(show, read)


def _show_lease(_: Record, value: bytes) -> Record:
    token, deadline, leased, content = _decode(value)
    record: Record = {"lease": token, "deadline": deadline, "leased": leased}
    if isinstance(content, dict):
        # 4 x deliveries + lane
        return record | {"messages": [[msg_id, packed] for msg_id, packed in content.items()]}
    return record | {"run": content}


def _read_lease(record: Record) -> bytes:
    content = dict(record["messages"]) if "messages" in record else record["run"]
    return _encode((record["lease"], record["deadline"], record["leased"], content))


def _show_outbox(_: Record, value: bytes) -> Record:
    source, incarnation, number, send = _decode(value)
    address, lane, headers, payload, options = send
    return {
        "source": source.decode(),
        "source_incarnation": incarnation,
        "source_number": number,
        "to": address.decode(),
        "lane": lane,
        "headers": headers.decode(),
        "payload": b64encode(payload).decode(),
        "options": options,
    }


def _read_outbox(record: Record) -> bytes:
    send = (
        record["to"].encode(),
        record["lane"],
        record["headers"].encode(),
        b64decode(record["payload"], validate=True),
        record["options"],
    )
    source = record["source"].encode()
    return _encode((source, record["source_incarnation"], record["source_number"], send))


# Keys: a kind's prefix, then parts in order. "text" and "id" take what is left.

_U64, _LANE, _REST, _MAILBOX_NAME = range(4)


class _Kind(NamedTuple):
    name: str
    prefix: bytes
    parts: tuple[tuple[str, int], ...]
    value: _Value
    suffix: bytes = b""


_DUE_AND_MAILBOX: Final = (("due", _U64), ("incarnation", _U64))
_IN_GROUP: Final = (("group_number", _U64), ("lane", _LANE))
_SEGMENT_KEY: Final = (("lane", _LANE), ("first_id", _U64))
_STATE_FIELDS: Final = (
    "next_id",
    "next_number",
    "messages",
    "last_ids",
    "bytes",
    "delayed",
    "delayed_bytes",
    "dedup_ids",
    "groups",
    "next_group",
    "armed_timer",
    "armed_cleaning",
    "evictable_known",
)

_TOP: Final = (
    _Kind("format", keys.FORMAT, (), _VERSION),
    _Kind("time", keys.TIME, (), _number("ms")),
    _Kind("next_incarnation", keys.NEXT_INCARNATION, (), _number("next")),
    _Kind("counts", keys.COUNTS, (), _COUNTS),
    _Kind("address", keys.ADDRESS, (("mail_address", _REST),), _number("incarnation")),
    _Kind("timer", keys.TIMER, (*_DUE_AND_MAILBOX, ("agent", _REST)), _EMPTY),
    _Kind("cleaning", keys.CLEANING, _DUE_AND_MAILBOX, _EMPTY),
    _Kind(
        "outbox", keys.OUTBOX, (("incarnation", _U64), ("number", _U64)), _Value(_show_outbox, _read_outbox)
    ),
    _Kind(
        "agent",
        keys.AGENT,
        (("name", _REST),),
        _array(
            "body",
            "mailbox",
            "ttl",
            "registered_ms",
            "seen_ms",
            "status",
            "armed",
            body=_TEXT,
            status=_OPTIONAL_TEXT,
        ),
    ),
    _Kind("agent_by_mailbox", keys.AGENT_BY_MAILBOX, (("mailbox", _MAILBOX_NAME), ("name", _REST)), _EMPTY),
)
_IN_MAILBOX: Final = (
    _Kind(
        "mailbox",
        keys.FIXED,
        (),
        _array(
            "mail_address",
            "ttl",
            "desc",
            "max_deliveries",
            "dead_letter",
            "created_ms",
            mail_address=_TEXT,
            dead_letter=_TEXT,
        ),
    ),
    _Kind("mailbox_state", keys.STATE, (), _array(*_STATE_FIELDS)),
    _Kind("segment", keys.SEGMENT, _SEGMENT_KEY, _Value(_show_segment, _read_segment), keys.MESSAGES_SUFFIX),
    _Kind("gone", keys.SEGMENT, _SEGMENT_KEY, _Value(_show_gone, _read_gone), keys.GONE_SUFFIX),
    _Kind("compaction", keys.COMPACTION, (("key", _REST),), _LANE_AND_ID),
    _Kind("dedup", keys.DEDUP, (("id", _REST),), _array("until", "reply_plus_1")),
    _Kind("mailbox_timer", keys.MAILBOX_TIMER, (("due", _U64), ("number", _U64)), _one_of(_TIMERS)),
    _Kind("mailbox_cleaning", keys.MAILBOX_CLEANING, (("due", _U64), ("number", _U64)), _one_of(_CLEANINGS)),
    _Kind(
        "group",
        keys.GROUP,
        (("group_name", _REST),),
        _array("group_number", "start", "from_time", "cursors", "has_redeliveries", "has_confirmed"),
    ),
    _Kind(
        "lease",
        keys.LEASE,
        (("group_number", _U64), ("number", _U64)),
        _Value(_show_lease, _read_lease),
    ),
    _Kind("redelivery", keys.REDELIVERY, (*_IN_GROUP, ("msg_id", _U64)), _number("deliveries")),
    _Kind("confirmed", keys.CONFIRMED, (*_IN_GROUP, ("first_id", _U64)), _number("last_id")),
    _Kind("evictable", keys.EVICTABLE, (("msg_id", _U64),), _LANE_VALUE),
)
_BY_NAME: Final = {kind.name: (kind, False) for kind in _TOP} | {
    kind.name: (kind, True) for kind in _IN_MAILBOX
}
#: All kinds of records.
KINDS: Final = frozenset(_BY_NAME)
_INCARNATION_END: Final = len(keys.MAILBOX) + 8


def decode_record(key: bytes, value: bytes) -> Record:
    """Return what a key and its value say.

    Raises:
        RecordError: they are not of this format.
    """
    try:
        if key.startswith(keys.MAILBOX):
            inside = {"incarnation": unpack_u64(key[1:_INCARNATION_END])[0]}
            return _decode_kind(_IN_MAILBOX, key[_INCARNATION_END:], value, inside)
        return _decode_kind(_TOP, key, value, {})
    except RecordError as error:
        raise RecordError(f"key {key.hex()}: {error}") from None
    except Exception as error:
        raise RecordError(f"key {key.hex()}: {type(error).__name__}: {error}") from None


def _decode_kind(kinds: tuple[_Kind, ...], key: bytes, value: bytes, inside: Record) -> Record:
    for kind in kinds:
        if key.startswith(kind.prefix) and key.endswith(kind.suffix):
            record = {"kind": kind.name, **inside}
            end = len(key) - len(kind.suffix)
            position = len(kind.prefix)
            for name, part in kind.parts:
                record[name], position = _decode_part(part, key[:end], position)
            if position != end:
                raise RecordError("its length is wrong")
            return record | kind.value.show(record, value)
    raise RecordError("its kind is unknown")


def _decode_part(part: int, key: bytes, position: int) -> tuple[Any, int]:
    if part == _U64:
        return unpack_u64(key[position : position + 8])[0], position + 8
    if part == _LANE:
        if key[position] > 2:
            raise RecordError(f"its lane is {key[position]}")
        return key[position], position + 1
    if part == _MAILBOX_NAME:
        start = position + 4
        end = start + int.from_bytes(key[position:start], "big")
        return key[start:end].decode(), end
    return key[position:].decode(), len(key)


def encode_record(record: Record) -> tuple[bytes, bytes]:
    """Return the key and the value of a record: the bytes that `decode_record` read.

    Raises:
        RecordError: it is no record.
    """
    try:
        kind, in_mailbox = _BY_NAME[record["kind"]]
        key = (keys.mailbox_prefix(record["incarnation"]) if in_mailbox else b"") + kind.prefix
        for name, part in kind.parts:
            key += _encode_part(part, record[name])
        return key + kind.suffix, kind.value.read(record)
    except RecordError:
        raise
    except KeyError as error:
        raise RecordError(f"no or unknown {error}") from None
    except Exception as error:
        raise RecordError(f"{type(error).__name__}: {error}") from None


def _encode_part(part: int, value: Any) -> bytes:
    if part == _U64:
        return pack_u64(value)
    if part == _LANE:
        return keys.LANE_BYTES[value]
    text: bytes = value.encode()
    return len(text).to_bytes(4, "big") + text if part == _MAILBOX_NAME else text
