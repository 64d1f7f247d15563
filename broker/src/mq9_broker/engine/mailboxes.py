"""CREATE, DELETE and INFO of mailboxes, DELETE and QUERY of messages."""

from collections.abc import Iterator
from heapq import merge
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mq9_broker._generated import errors
from mq9_broker._generated.commands import (
    MailboxCreate,
    MailboxDelete,
    MailboxInfo,
    MsgDelete,
    MsgQuery,
)
from mq9_broker.engine.commands import PRIORITIES
from mq9_broker.engine.groups import Group, all_groups
from mq9_broker.engine.keys import COMPACTION, MAILBOX_CLEANING, pack_u64, unpack_u64
from mq9_broker.engine.mailbox import CLEAN_EXPIRED, Mailbox, new_mailbox
from mq9_broker.engine.rendering import message_json, middle
from mq9_broker.engine.segments import (
    PLAIN_FIELDS,
    TAGS_FIELD,
    Message,
    Segment,
    Tally,
    first_id_of,
    is_expired,
)

if TYPE_CHECKING:
    from mq9_broker.engine.state import State

_DELETED: Final = b'{"error":"","deleted":true}'
_QUERY_HEAD: Final = b'{"error":"","messages":['
_encode_json = msgspec.json.encode
_decode = msgspec.msgpack.Decoder().decode


def create(state: "State", command: MailboxCreate) -> bytes:
    """Carries out MAILBOX.CREATE."""
    address = command.address
    if command.dead_letter and command.dead_letter == address:
        return errors.invalid_argument("dead_letter", "is the mailbox's own address")
    if state.mailbox(address) is not None:
        return errors.mailbox_exists(address.decode())
    most = state.limits.max_mailboxes
    if most and state.counts[0] >= most:
        return errors.unavailable(f"there are {most} mailboxes already, the most that this broker keeps")
    new_mailbox(
        state,
        (address, command.ttl, command.desc, command.max_deliveries, command.dead_letter, state.now),
    )
    return b'{"error":"","mail_address":"%b"}' % address


def delete(state: "State", command: MailboxDelete) -> bytes:
    """Carries out MAILBOX.DELETE."""
    mailbox = state.mailbox(command.address)
    if mailbox is None:
        return errors.mailbox_not_found(command.address.decode())
    state.remove_mailbox(mailbox)
    return _DELETED


def delete_message(state: "State", command: MsgDelete) -> bytes:
    """Carries out MSG.DELETE."""
    mailbox = state.mailbox(command.address)
    if mailbox is None:
        return errors.mailbox_not_found(command.address.decode())
    found = state.segments.locate(mailbox, command.msg_id, state.now)
    if found is None:
        return errors.message_not_found()
    mailbox.remove(state, found[0], [command.msg_id])
    return _DELETED


def info(state: "State", command: MailboxInfo) -> bytes:
    """Carries out MAILBOX.INFO. Counts: not for the hot path."""
    mailbox = state.mailbox(command.address)
    if mailbox is None:
        return errors.mailbox_not_found(command.address.decode())
    counts = _living(state, mailbox)
    view: dict[str, Any] = {
        "mail_address": mailbox.address.decode(),
        "desc": mailbox.desc,
        "ttl": mailbox.ttl_s,
        "create_time": mailbox.created_ms // 1000,
    }
    if mailbox.ttl_s:
        view["expires_at"] = mailbox.expires_ms // 1000
    view |= {
        "max_deliveries": mailbox.max_deliveries,
        "dead_letter": mailbox.dead_letter.decode(),
        "messages": dict(zip(PRIORITIES, counts, strict=True)),
        "delayed": mailbox.delayed,
        "groups": [_group_view(state, mailbox, group) for group in all_groups(state, mailbox)],
    }
    return b'{"error":"","mailbox":%b}' % _encode_json(view)


def _living(state: "State", mailbox: Mailbox) -> list[int]:
    """Messages per lane without the expired ones that are not cleaned up yet."""
    counts = list(mailbox.live)
    prefix = mailbox.prefix + MAILBOX_CLEANING
    for _, value in state.store.scan(prefix, prefix + pack_u64(state.now + 1)):
        kind, *values = _decode(value)
        for lane, ids in enumerate(values) if kind == CLEAN_EXPIRED else ():
            for msg_id in ids:
                segment = state.segments.floor(mailbox, lane, msg_id)
                if segment is not None and segment.get(msg_id) is not None:
                    counts[lane] -= 1
    return counts


def _group_view(state: "State", mailbox: Mailbox, group: Group) -> dict[str, Any]:
    pending = leased = 0
    for record in group.all_records(state):
        there = sum(
            state.segments.find(mailbox, packed & 3, msg_id, state.now) is not None
            for msg_id, packed in record.entries.items()
        )
        if record.leased:
            leased += there
        else:
            pending += there
    start, started = 0, not group.from_time
    if group.from_time and state.now // 1000 >= group.from_time:
        start, started = state.segments.first_id_since(mailbox, 1000 * group.from_time), True
    for lane in (0, 1, 2):
        if group.redeliveries[lane]:
            pending += sum(
                state.segments.find(mailbox, lane, msg_id, state.now) is not None
                for msg_id, _ in group.scan_redeliveries(state, lane)
            )
        if started:
            pending += _open(state, mailbox, group, lane, max(start, group.cursors[lane]))
    return {"group_name": group.name, "pending": pending, "leased": leased}


def _open(state: "State", mailbox: Mailbox, group: Group, lane: int, cursor: int) -> int:
    """Messages from ``cursor`` on that are not confirmed."""
    count = 0
    if cursor > mailbox.last_ids[lane]:
        return 0
    segment = state.segments.floor(mailbox, lane, cursor)
    if segment is not None and first_id_of(segment.key) < cursor:
        count += _open_in(state, group, lane, segment, cursor)
    interval = group.next_interval(state, lane, cursor)
    before: Tally | None = None
    for tally in chain(state.segments.tallies(mailbox, lane, cursor), (None,)):
        if before is not None:
            end = mailbox.next_id if tally is None else tally.first_id
            while interval is not None and interval[1] < before.first_id:
                interval = group.interval_after(state, lane, interval[1])
            if not 0 < before.earliest_expiry <= state.now and (interval is None or interval[0] >= end):
                count += before.live
            elif (found := state.segments.floor(mailbox, lane, before.first_id)) is not None:
                count += _open_in(state, group, lane, found, cursor)
        before = tally
    return count


def _open_in(state: "State", group: Group, lane: int, segment: Segment, cursor: int) -> int:
    count = 0
    interval = group.next_interval(state, lane, max(cursor, segment.ids[0]))
    for message in segment.messages[segment.index_at_or_after(cursor) :]:
        if message is None or is_expired(message, state.now):
            continue
        while interval is not None and interval[1] < message[0]:
            interval = group.interval_after(state, lane, interval[1])
        if interval is None or message[0] < interval[0]:
            count += 1
    return count


def query(state: "State", command: MsgQuery) -> bytes:
    """Carries out MSG.QUERY."""
    mailbox = state.mailbox(command.address)
    if mailbox is None:
        return errors.mailbox_not_found(command.address.decode())
    start = command.from_id or 0
    if command.since is not None:
        if command.since > state.now // 1000:
            return _QUERY_HEAD + b"]}"
        start = max(start, state.segments.first_id_since(mailbox, 1000 * command.since))
    if command.key:
        found = _of_key(state, mailbox, command.key, start)
    else:
        found = _in_order(state, mailbox, start, newest_first=command.from_id is None)
    wanted = set(command.tags)
    if wanted:
        found = (item for item in found if wanted <= _tags(item[3]))
    parts: list[bytes] = []
    size = len(_QUERY_HEAD) + 2
    for _, lane, segment, message in islice(found, command.limit):
        part = message_json(message, middle(lane, segment.create_ms), 0)
        size += len(part) + 1
        # The comma counted too much is the first one's.
        if parts and size - 1 > state.limits.max_reply:
            break
        parts.append(part)
    if command.from_id is None:
        parts.reverse()
    return b"%b%b]}" % (_QUERY_HEAD, b",".join(parts))


def _tags(message: Message) -> set[str]:
    return set(message[TAGS_FIELD]) if len(message) > PLAIN_FIELDS else set()


def _of_key(
    state: "State", mailbox: Mailbox, key: str, start: int
) -> Iterator[tuple[int, int, Segment, Message]]:
    """The one message that has the key."""
    newest = state.store.get(mailbox.prefix + COMPACTION + key.encode())
    if newest is not None:
        lane, msg_id = newest[0], unpack_u64(newest[1:])[0]
        found = state.segments.find(mailbox, lane, msg_id, state.now)
        if found is not None and msg_id >= start:
            yield msg_id, lane, *found


def _in_order(
    state: "State", mailbox: Mailbox, start: int, *, newest_first: bool
) -> Iterator[tuple[int, int, Segment, Message]]:
    """(msg_id, lane, segment, message) of all lanes, ascending or descending."""
    walk = _descending if newest_first else _ascending
    lanes = [walk(state, mailbox, lane, start) for lane in (0, 1, 2) if mailbox.last_ids[lane] >= start]
    return merge(*lanes, key=_by_id, reverse=newest_first)


def _by_id(item: tuple[int, int, Segment, Message]) -> int:
    return item[0]


def _ascending_segments(state: "State", mailbox: Mailbox, lane: int, start: int) -> Iterator[Segment]:
    if start > mailbox.last_ids[lane]:
        return
    segment = state.segments.at_or_after(mailbox, lane, start)
    while segment is not None:
        yield segment
        segment = state.segments.after(mailbox, lane, segment.key)


def _ascending(
    state: "State", mailbox: Mailbox, lane: int, start: int
) -> Iterator[tuple[int, int, Segment, Message]]:
    for segment in _ascending_segments(state, mailbox, lane, start):
        for message in segment.messages[segment.index_at_or_after(start) :]:
            if message is not None and not is_expired(message, state.now):
                yield message[0], lane, segment, message


def _descending(
    state: "State", mailbox: Mailbox, lane: int, start: int
) -> Iterator[tuple[int, int, Segment, Message]]:
    segment = state.segments.floor(mailbox, lane, mailbox.last_ids[lane])
    while segment is not None and segment.ids[-1] >= start:
        for message in reversed(segment.messages[segment.index_at_or_after(start) :]):
            if message is not None and not is_expired(message, state.now):
                yield message[0], lane, segment, message
        segment = state.segments.before(mailbox, lane, segment.key)
