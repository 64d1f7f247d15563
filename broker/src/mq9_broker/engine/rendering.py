"""Messages as JSON."""

from binascii import b2a_base64
from typing import Final

import msgspec

from mq9_broker.engine.commands import PRIORITIES
from mq9_broker.engine.segments import (
    EXPIRY_FIELD,
    KEY_FIELD,
    PLAIN_FIELDS,
    TAGS_FIELD,
    Message,
)

_encode = msgspec.json.encode
#: What follows a payload, by lane: to be filled with create_time and create_time_ms.
MIDDLES: Final = tuple(
    b'","encoding":"base64","priority":"%b","create_time":%%d,"create_time_ms":%%d' % priority.encode()
    for priority in PRIORITIES
)


def middle(lane: int, create_ms: int) -> bytes:
    """The part of a message's JSON that is the same for a whole segment."""
    return MIDDLES[lane] % (create_ms // 1000, create_ms)


#: `run_json` is fast up to so many messages.
MOST_OF_RUN: Final = 100

# What stands before the payload in a message's JSON is its id's last two digits and this.
_LAST_DIGITS: Final = [b'%02d,"payload":' % digits for digits in range(100)] * 2


def run_json(first_id: int, texts: list[bytes], rest: bytes) -> bytes:
    """JSON of at most 100 messages of a run, without the brackets of the array.

    Args:
        first_id: The id of the first.
        texts: Their payloads as JSON strings.
        rest: What follows the payload, the closing brace included; the same for all.
    """
    count = len(texts)
    hundreds, digits = divmod(first_id, 100)
    if count > MOST_OF_RUN or not hundreds:
        form = b'{"msg_id":%d,"payload":%b' + rest.replace(b"%", b"%%")
        return b",".join(map(form.__mod__, zip(range(first_id, first_id + count), texts, strict=True)))
    # Three parts a message: what ends the one before and begins this one, two digits, its payload.
    parts = [b'%b,{"msg_id":%d' % (rest, hundreds)] * (3 * count)
    before = min(count, 100 - digits)
    if before < count:
        parts[3 * before :: 3] = [b'%b,{"msg_id":%d' % (rest, hundreds + 1)] * (count - before)
    parts[0] = b'{"msg_id":%d' % hundreds
    parts[1::3] = _LAST_DIGITS[digits : digits + count]
    parts[2::3] = texts
    parts.append(rest)
    return b"".join(parts)


def message_json(message: Message, middle: bytes, count: int) -> bytes:
    """One message's JSON; ``count`` = leased deliveries to the group, 0 = not shown."""
    text = b'{"msg_id":%d,"payload":"%b%b' % (
        message[0],
        b2a_base64(message[2], newline=False),
        middle,
    )
    if len(message) > PLAIN_FIELDS:
        if message[KEY_FIELD]:
            text += b',"key":' + _encode(message[KEY_FIELD])
        if message[TAGS_FIELD]:
            text += b',"tags":' + _encode(message[TAGS_FIELD])
    if message[1]:
        text += b',"headers":' + message[1]
    if count:
        text += b',"delivery_count":%d' % count
    if len(message) > PLAIN_FIELDS and message[EXPIRY_FIELD]:
        text += b',"expires_at":%d' % (message[EXPIRY_FIELD] // 1000)
    return text + b"}"
