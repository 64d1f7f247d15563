"""ACK, NACK, RENEW, and what happens when a lease runs out."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from mq9_broker._generated import errors
from mq9_broker._generated.commands import MsgAck, MsgNack, MsgRenew
from mq9_broker.engine.commands import AckRun
from mq9_broker.engine.dead_letters import give_up
from mq9_broker.engine.effects import Deliverable
from mq9_broker.engine.groups import (
    Group,
    LeaseRecord,
    find_group,
    note_confirmed,
    resolve_start,
)
from mq9_broker.engine.walking import open_messages

if TYPE_CHECKING:
    from mq9_broker.engine.mailbox import Mailbox
    from mq9_broker.engine.state import State

OK: Final = b'{"error":""}'
_encode_json = msgspec.json.encode


def lease_name(mailbox: "Mailbox", token: int) -> str:
    """The ``lease_id`` that clients see."""
    return f"{mailbox.incarnation:x}-{token:x}"


def acknowledge(state: "State", command: MsgAck) -> bytes:
    """Carries out MSG.ACK of exact ids."""
    ids = command.msg_ids
    run = range(ids[0], ids[0] + len(ids))
    # Just what `acknowledge_run` does where it is the same.
    is_run = ids[-1] == run[-1] and ids == tuple(run)
    return _acknowledge(state, command.address, command.group_name, run if is_run else ids)


def acknowledge_run(state: "State", command: AckRun) -> bytes:
    """Carries out MSG.ACK of consecutive ids."""
    ids = range(command.first_id, command.last_id + 1)
    return _acknowledge(state, command.address, command.group_name, ids)


def _acknowledge(state: "State", address: bytes, group_name: str, msg_ids: tuple[int, ...] | range) -> bytes:
    mailbox = state.mailbox(address)
    if mailbox is None:
        return errors.mailbox_not_found(address.decode())
    group = find_group(state, mailbox, group_name)
    if group is not None:
        if group.from_time:
            resolve_start(state, mailbox, group)
        _confirm(state, mailbox, group, msg_ids)
    return OK


def _confirm(state: "State", mailbox: "Mailbox", group: Group, msg_ids: tuple[int, ...] | range) -> None:
    if group.hides_nothing(state):
        if not isinstance(msg_ids, range):
            _confirm_others(state, mailbox, group, sorted(set(msg_ids)))
        elif not _confirm_next(state, mailbox, group, msg_ids):
            _confirm_others(state, mailbox, group, msg_ids)
        return
    record = group.holder(state, msg_ids[0])
    if record is not None and record.holds_exactly(msg_ids):
        # All of a lease and nothing else.
        _take(state, mailbox, group, {record.number: msg_ids})
    else:
        _confirm_one_by_one(state, mailbox, group, msg_ids)


def _confirm_next(state: "State", mailbox: "Mailbox", group: Group, ids: range) -> bool:
    """Confirms what comes next in a lane, without a look at the messages; whether that is so.

    It is where only one lane has ids as great as these: what is not there of them, or not any more, is behind
    the group like what is gone elsewhere.
    """
    lane = -1
    for candidate, last_id in enumerate(mailbox.last_ids):
        if last_id >= ids[0]:
            if lane >= 0:
                return False
            lane = candidate
    if lane < 0 or group.cursors[lane] != ids[0] or mailbox.last_ids[lane] < ids[-1]:
        return False
    if group.intervals[lane] or group.from_time or mailbox.evictable_known:
        return False
    group.move_cursor(state, mailbox, lane, ids[-1] + 1)
    return True


def _confirm_one_by_one(state: "State", mailbox: "Mailbox", group: Group, msg_ids: Iterable[int]) -> None:
    taken: dict[int, list[int]] = {}
    others: list[int] = []
    for msg_id in dict.fromkeys(msg_ids):
        record = group.holder(state, msg_id)
        if record is None:
            others.append(msg_id)
        elif record.number in taken:
            taken[record.number].append(msg_id)
        else:
            taken[record.number] = [msg_id]
    if taken:
        _take(state, mailbox, group, taken)
    if others:
        others.sort()
        _confirm_others(state, mailbox, group, others)


def _take(state: "State", mailbox: "Mailbox", group: Group, taken: Mapping[int, Sequence[int]]) -> None:
    if mailbox.evictable_known:
        _note_taken(state, mailbox, group, taken)
    group.take(state, mailbox, taken)


def _note_taken(state: "State", mailbox: "Mailbox", group: Group, taken: Mapping[int, Sequence[int]]) -> None:
    for number, ids in taken.items():
        record = group.record_of(state, number)
        for msg_id in ids if record is not None else ():
            found = state.segments.locate(mailbox, msg_id, state.now)
            if found is not None:
                note_confirmed(state, mailbox, group, found[0], (msg_id,))


def _confirm_others(state: "State", mailbox: "Mailbox", group: Group, ids: Sequence[int]) -> None:
    """Confirms messages that no record hides; ``ids`` ascend."""
    position = 0
    while position < len(ids):
        found = state.segments.segment_of(mailbox, ids[position], state.now)
        if found is None:
            position += 1
            continue
        lane, segment = found
        # As many as follow each other in the segment too are one run.
        index = segment.index_at_or_after(ids[position])
        count = min(len(ids) - position, len(segment.ids) - index)
        if segment.run_json is not None and ids[position + count - 1] - ids[position] + 1 == count:
            _confirm_run(state, mailbox, group, lane, ids[position : position + count])
            position += count
            continue
        run = [ids[position]]
        position += 1
        index += 1
        while position < len(ids) and index < len(segment.ids):
            message = segment.messages[index]
            if message is not None:
                if segment.ids[index] != ids[position]:
                    break
                run.append(ids[position])
                position += 1
            index += 1
        _confirm_run(state, mailbox, group, lane, run)


def _confirm_run(state: "State", mailbox: "Mailbox", group: Group, lane: int, run: Sequence[int]) -> None:
    """Confirms messages that follow each other in a lane."""
    if group.start <= group.cursors[lane] <= run[0]:
        started, fresh = 0, 0
    else:
        started = bisect_left(run, group.start)
        fresh = bisect_left(run, group.cursors[lane])
    if group.redeliveries[lane]:
        for msg_id in run[started:fresh]:
            if group.is_redelivery(state, lane, msg_id):
                group.remove_redelivery(state, lane, msg_id)
    if started:
        _confirm_fresh(state, mailbox, group, lane, run[0], run[started - 1])
    if fresh < len(run):
        _confirm_fresh(state, mailbox, group, lane, run[fresh], run[-1])
    group.touch(state, mailbox)
    if mailbox.evictable_known:
        note_confirmed(state, mailbox, group, lane, run)


def _confirm_fresh(
    state: "State", mailbox: "Mailbox", group: Group, lane: int, first: int, last: int
) -> None:
    """Confirms ``first`` to ``last``, all at the cursor or after it, or all before the group's start."""
    cursor = group.cursors[lane]
    if first >= cursor:
        next_id = first if first == cursor else _next_open(state, mailbox, group, lane, cursor)
        if next_id is None or next_id >= first:
            group.move_cursor(state, mailbox, lane, max(last + 1, next_id or 0))
            return
    segments = state.segments
    around = group.interval_around(state, lane, first)
    if around is not None:
        joins = around[1] >= first or segments.next_id(mailbox, lane, around[1] + 1) == first
        if joins and (first < cursor or around[0] >= cursor):
            group.remove_interval(state, lane, around[0])
            first, last = around[0], max(last, around[1])
    behind = group.interval_after(state, lane, first)
    while behind is not None:
        if behind[0] > last and (
            segments.next_id(mailbox, lane, last + 1) != behind[0] or (last < cursor <= behind[0])
        ):
            break
        group.remove_interval(state, lane, behind[0])
        last = max(last, behind[1])
        behind = group.interval_after(state, lane, first)
    group.add_interval(state, lane, first, last)


def _next_open(state: "State", mailbox: "Mailbox", group: Group, lane: int, msg_id: int) -> int | None:
    """The first id from ``msg_id`` on that is neither gone nor confirmed."""
    found = next(open_messages(state, mailbox, group, lane, msg_id), None)
    return None if found is None else int(found[1][0])


def give_back(state: "State", command: MsgNack) -> bytes:
    """Carries out MSG.NACK."""
    mailbox = state.mailbox(command.address)
    if mailbox is None:
        return errors.mailbox_not_found(command.address.decode())
    group = find_group(state, mailbox, command.group_name)
    if group is not None:
        held = _held(state, mailbox, group, command.msg_ids, command.lease_id)
        ended = [(msg_id, record.entries[msg_id]) for msg_id, record in held.items()]
        group.take(state, mailbox, _by_record(held))
        end_deliveries(state, mailbox, group, ended, command.delay_ms)
    return OK


def renew(state: "State", command: MsgRenew) -> bytes:
    """Carries out MSG.RENEW."""
    mailbox = state.mailbox(command.address)
    if mailbox is None:
        return errors.mailbox_not_found(command.address.decode())
    group = find_group(state, mailbox, command.group_name)
    held = {} if group is None else _held(state, mailbox, group, command.msg_ids, command.lease_id)
    if group is not None and not command.lease_ms:
        ended = [(msg_id, record.entries[msg_id]) for msg_id, record in held.items()]
        group.take(state, mailbox, _by_record(held))
        end_deliveries(state, mailbox, group, ended, 0)
    elif group is not None:
        _prolong(state, mailbox, group, held, state.now + command.lease_ms)
    return b'{"error":"","renewed":%b}' % _encode_json(list(held))


def _prolong(
    state: "State", mailbox: "Mailbox", group: Group, held: dict[int, LeaseRecord], deadline: int
) -> None:
    by_token: dict[int, dict[int, int]] = {}
    for msg_id, record in held.items():
        by_token.setdefault(record.token, {})[msg_id] = record.entries[msg_id]
    group.take(state, mailbox, _by_record(held))
    for token, entries in by_token.items():
        record = LeaseRecord(mailbox.number(state), token, deadline, True, entries)
        group.add_record(state, mailbox, record)


def _held(
    state: "State", mailbox: "Mailbox", group: Group, msg_ids: Iterable[int], lease_id: str
) -> dict[int, LeaseRecord]:
    """Those of the messages that are leased now, under that lease if one is named, and still exist."""
    held: dict[int, LeaseRecord] = {}
    for msg_id in msg_ids:
        record = group.holder(state, msg_id)
        if record is None or not record.leased:
            continue
        if lease_id and lease_id != lease_name(mailbox, record.token):
            continue
        if state.segments.find(mailbox, record.entries[msg_id] & 3, msg_id, state.now) is not None:
            held[msg_id] = record
    return held


def _by_record(held: dict[int, LeaseRecord]) -> dict[int, list[int]]:
    numbers: dict[int, list[int]] = {}
    for msg_id, record in held.items():
        numbers.setdefault(record.number, []).append(msg_id)
    return numbers


def end_lease(state: "State", mailbox: "Mailbox", name: str, gid: int, number: int) -> None:
    """Runs a lease record's timer."""
    group = find_group(state, mailbox, name)
    if group is None or group.gid != gid:
        return
    record = group.record_of(state, number)
    if record is not None:
        ended = list(record.entries.items())
        group.take(state, mailbox, {number: [msg_id for msg_id, _ in ended]})
        end_deliveries(state, mailbox, group, ended, 0)


def end_deliveries(
    state: "State", mailbox: "Mailbox", group: Group, ended: list[tuple[int, int]], delay_ms: int
) -> None:
    """Lets messages come again, at once or after a delay, or gives them up after the last delivery allowed.

    ``ended``: (msg_id, 4 x leased deliveries so far + lane), already taken out of their records.
    """
    hidden: dict[int, int] = {}
    back = False
    for msg_id, packed in ended:
        lane, count = packed & 3, packed >> 2
        found = state.segments.find(mailbox, lane, msg_id, state.now)
        if found is None:
            continue
        if mailbox.max_deliveries and count >= mailbox.max_deliveries:
            give_up(state, mailbox, group, lane, found[1], count)
            note_confirmed(state, mailbox, group, lane, (msg_id,))
        elif delay_ms:
            hidden[msg_id] = packed
        else:
            group.add_redelivery(state, lane, msg_id, count)
            group.touch(state, mailbox)
            back = True
    if hidden:
        number = mailbox.number(state)
        record = LeaseRecord(number, number, state.now + delay_ms, False, hidden)
        group.add_record(state, mailbox, record)
    if back:
        state.effects.append(Deliverable(mailbox.address, mailbox.incarnation, group.name))
