"""SEND with all its options, and making room in a mailbox that is full."""

from typing import TYPE_CHECKING, Any, Final

import msgspec

from mq9_broker._generated import errors
from mq9_broker._generated.headers import MQ9_DEAD_LETTER_FROM
from mq9_broker._generated.limits import DEDUP_WINDOW
from mq9_broker.engine.cleaning import clean_mailbox
from mq9_broker.engine.commands import SendCommand, SendOptions
from mq9_broker.engine.groups import all_groups
from mq9_broker.engine.keys import COMPACTION, DEDUP, EVICTABLE, LANE_BYTES, MAX_U64, pack_u64, unpack_u64
from mq9_broker.engine.mailbox import CLEAN_DEDUP, TIMER_DELAY_ENDS, is_limited
from mq9_broker.engine.segments import Message, message_size

if TYPE_CHECKING:
    from mq9_broker.engine.mailbox import Mailbox
    from mq9_broker.engine.state import State

SENT: Final = b'{"error":"","msg_id":%d}'
_NO_OPTIONS: Final = SendOptions()
_encode = msgspec.msgpack.Encoder().encode
_decode_dedup = msgspec.msgpack.Decoder(tuple[int, int]).decode


def send(state: "State", command: SendCommand) -> bytes:
    """Carries out MSG.SEND, whatever options it has."""
    address, lane, headers, payload, options = command
    size = len(headers) + len(payload)
    most = state.limits.max_message
    # A dead letter is its message with some headers more: it was accepted once.
    if 0 < most < size and MQ9_DEAD_LETTER_FROM.encode() not in headers:
        return errors.payload_too_large(
            f"a message may have {most} bytes with its headers, this one has {size}"
        )
    mailbox = state.mailboxes.get(address) or state.mailbox(address)
    if mailbox is None:
        return errors.mailbox_not_found(address.decode())
    if options is None:
        options = _NO_OPTIONS
    dedup_key = b""
    remembered = 0
    if options.dedup_id:
        dedup_key = mailbox.prefix + DEDUP + options.dedup_id.encode()
        found = state.store.get(dedup_key)
        if found is not None:
            remembered = 1
            until, msg_id = _decode_dedup(found)
            if state.now < until:
                return SENT % (msg_id - 1)
    problem = _problem(state, mailbox, options, size, remembered)
    if problem:
        return errors.mailbox_full(address.decode(), problem)
    expires_ms = state.now + 1000 * options.ttl_s if options.ttl_s else 0
    content = (headers, payload, options.key, options.tags, expires_ms)
    if options.delay_s:
        msg_id = -1
        due = state.now + 1000 * options.delay_s
        if not expires_ms or expires_ms > due:
            mailbox.delayed += 1
            mailbox.delayed_bytes += len(headers) + len(payload)
            mailbox.add_timer(state, due, mailbox.number(state), (TIMER_DELAY_ENDS, lane, *content))
    else:
        msg_id = mailbox.next_id
        mailbox.add(state, lane, _message(msg_id, content))
        state.effects.extend(mailbox.sent_effects)
    if dedup_key:
        until = state.now + DEDUP_WINDOW
        # One more than the id, so that it fits an unsigned number.
        state.store.put(dedup_key, _encode((until, msg_id + 1)))
        mailbox.dedup_ids += 1 - remembered
        mailbox.add_cleaning(state, until, (CLEAN_DEDUP, [options.dedup_id]))
    return SENT % msg_id


def _message(msg_id: int, content: tuple[Any, ...]) -> Message:
    headers, payload, key, tags, expires_ms = content
    if key or tags or expires_ms:
        return (msg_id, headers, payload, key, tags, expires_ms)
    return (msg_id, headers, payload)


def end_delay(state: "State", mailbox: "Mailbox", lane: int, content: tuple[Any, ...]) -> None:
    """Lets a delayed message appear."""
    mailbox.delayed -= 1
    mailbox.delayed_bytes -= len(content[0]) + len(content[1])
    mailbox.add(state, lane, _message(mailbox.next_id, content))
    state.effects.extend(mailbox.sent_effects)


def _problem(state: "State", mailbox: "Mailbox", options: SendOptions, size: int, remembered: int) -> str:
    """Why there is no room for this message; "" when there is."""
    limits = state.limits
    if options.delay_s and limits.max_delayed and mailbox.delayed >= limits.max_delayed:
        return f"it has {mailbox.delayed} delayed messages"
    if options.dedup_id and not remembered:
        while 0 < limits.max_dedup_ids <= mailbox.dedup_ids:
            if not clean_mailbox(state, mailbox):
                return f"it remembers {mailbox.dedup_ids} dedup-ids"
    if not is_limited(state):
        return ""
    if _has_room(state, mailbox, size):
        return ""
    if 0 < limits.max_bytes < size:
        return f"it takes {limits.max_bytes} bytes, and this message has {size}"
    mailbox.write_messages(state)
    _learn_evictable(state, mailbox)
    while not _has_room(state, mailbox, size, _replaced(state, mailbox, options)):
        if not (clean_mailbox(state, mailbox) or _evict(state, mailbox)):
            return f"{_count(mailbox)} messages of {_bytes(mailbox)} bytes, and no message that may go"
    return ""


def _count(mailbox: "Mailbox") -> int:
    return sum(mailbox.live) + sum(map(len, mailbox.unwritten)) + mailbox.delayed


def _bytes(mailbox: "Mailbox") -> int:
    return mailbox.bytes_stored + mailbox.unwritten_bytes + mailbox.delayed_bytes


def _replaced(state: "State", mailbox: "Mailbox", options: SendOptions) -> Message | None:
    """The message that makes room by itself, because this one takes its place: its key's older one."""
    if not options.key or options.delay_s:
        return None
    older = state.store.get(mailbox.prefix + COMPACTION + options.key.encode())
    if older is None:
        return None
    found = state.segments.find(mailbox, older[0], unpack_u64(older[1:])[0], state.now)
    return None if found is None else found[1]


def _has_room(state: "State", mailbox: "Mailbox", size: int, replaced: Message | None = None) -> bool:
    limits = state.limits
    count, stored = _count(mailbox), _bytes(mailbox)
    if replaced is not None:
        count -= 1
        stored -= message_size(replaced)
    if limits.max_messages and count >= limits.max_messages:
        return False
    return not limits.max_bytes or stored + size <= limits.max_bytes


def _evict(state: "State", mailbox: "Mailbox") -> bool:
    """Removes the oldest message that every group has confirmed."""
    prefix = mailbox.prefix + EVICTABLE
    found = state.store.first(prefix, prefix + MAX_U64 + b"\x00")
    if found is None:
        return False
    state.store.delete(found[0])
    mailbox.remove(state, found[1][0], [unpack_u64(found[0][-8:])[0]])
    return True


def _learn_evictable(state: "State", mailbox: "Mailbox") -> None:
    """Finds what every group has confirmed in a mailbox that had no limits until now."""
    if mailbox.evictable_known:
        return
    mailbox.evictable_known = True
    mailbox.touch(state)
    groups = all_groups(state, mailbox)
    for lane in (0, 1, 2):
        msg_id = state.segments.next_id(mailbox, lane, 0) if groups else None
        while msg_id is not None:
            if all(group.is_confirmed(state, lane, msg_id) for group in groups):
                state.store.put(mailbox.prefix + EVICTABLE + pack_u64(msg_id), LANE_BYTES[lane])
            msg_id = state.segments.next_id(mailbox, lane, msg_id + 1)
