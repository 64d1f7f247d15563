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
_MIDDLES: Final = tuple(
    b'","encoding":"base64","priority":"%b","create_time":%%d,"create_time_ms":%%d' % priority.encode()
    for priority in PRIORITIES
)


def middle(lane: int, create_ms: int) -> bytes:
    """The part of a message's JSON that is the same for a whole segment."""
    return _MIDDLES[lane] % (create_ms // 1000, create_ms)


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
