"""Messages that used up their deliveries: an outbox entry with a copy for the dead-letter mailbox."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from mq9_broker._generated.headers import (
    MQ9_DEAD_LETTER_COUNT,
    MQ9_DEAD_LETTER_FROM,
    MQ9_DEAD_LETTER_GROUP,
    MQ9_DEAD_LETTER_MSG_ID,
    MQ9_DEAD_LETTER_REASON,
)
from mq9_broker.engine.commands import OutboxRemove, SendOptions
from mq9_broker.engine.effects import DeadLetter, DeadLetterDropped
from mq9_broker.engine.keys import MAX_U64, OUTBOX, two_numbers
from mq9_broker.engine.segments import PLAIN_FIELDS, TAGS_FIELD, Message

if TYPE_CHECKING:
    from mq9_broker.engine.groups import Group
    from mq9_broker.engine.mailbox import Mailbox
    from mq9_broker.engine.state import State

_REASON: Final = "max_deliveries"
_encode_json = msgspec.json.encode
_decode_headers = msgspec.json.Decoder(dict[str, list[str]]).decode
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(
    tuple[bytes, int, int, tuple[bytes, int, bytes, bytes, SendOptions | None]]
).decode


def give_up(
    state: "State", mailbox: "Mailbox", group: "Group", lane: int, message: Message, count: int
) -> None:
    """Enters a message's copy in the outbox, or drops it for the group.

    The caller has taken it out of the group's records: that confirms it.
    """
    msg_id: int = message[0]
    headers = _decode_headers(message[1]) if message[1] else {}
    reason = ""
    if not mailbox.dead_letter:
        reason = "no_dead_letter"
    elif any(name.lower() == MQ9_DEAD_LETTER_FROM for name in headers):
        reason = "already_dead_letter"
    if reason:
        state.effects.append(DeadLetterDropped(mailbox.address, group.name, msg_id, reason))
        return
    address = mailbox.address.decode()
    headers |= {
        MQ9_DEAD_LETTER_FROM: [address],
        MQ9_DEAD_LETTER_GROUP: [group.name],
        MQ9_DEAD_LETTER_MSG_ID: [str(msg_id)],
        MQ9_DEAD_LETTER_REASON: [_REASON],
        MQ9_DEAD_LETTER_COUNT: [str(count)],
    }
    options = SendOptions(
        tags=tuple(message[TAGS_FIELD]) if len(message) > PLAIN_FIELDS else (),
        # The group by its number: its name may be too long for an id, and a reset group delivers anew. The
        # control character keeps clients from taking the id before.
        dedup_id=f"\x00dead-letter:{address}:{mailbox.incarnation}:{group.gid}:{msg_id}:{count}",
    )
    send = (mailbox.dead_letter, lane, _encode_json(headers), message[2], options)
    entry = mailbox.number(state)
    effect = DeadLetter(mailbox.address, mailbox.incarnation, entry, send)
    key = two_numbers(OUTBOX, mailbox.incarnation, entry)
    state.store.put(key, _encode((effect.source, effect.incarnation, effect.entry, send)))
    state.effects.append(effect)


def remove_entry(state: "State", command: OutboxRemove) -> bytes:
    """Carries out OutboxRemove."""
    state.store.delete(two_numbers(OUTBOX, command.incarnation, command.entry))
    return b""


def outbox(state: "State") -> Iterator[DeadLetter]:
    """All entries, oldest first within a mailbox."""
    for _, value in state.store.scan(OUTBOX, OUTBOX + MAX_U64 + MAX_U64 + b"\x00"):
        yield DeadLetter(*_decode(value))
