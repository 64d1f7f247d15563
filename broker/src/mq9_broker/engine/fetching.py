"""FETCH: which messages come next, in what order, and what that does to the group."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mq9_broker import native
from mq9_broker._generated import errors
from mq9_broker._generated.commands import MsgFetch
from mq9_broker.engine.effects import Deliverable, Fetched, GroupReset
from mq9_broker.engine.groups import (
    Group,
    LeaseRecord,
    end_group,
    find_group,
    resolve_start,
    run_of,
    start_group,
)
from mq9_broker.engine.rendering import MIDDLES, MOST_OF_RUN, message_json, middle, run_json
from mq9_broker.engine.segments import Segment
from mq9_broker.engine.settling import lease_name
from mq9_broker.engine.walking import open_messages

if TYPE_CHECKING:
    from mq9_broker.engine.mailbox import Mailbox
    from mq9_broker.engine.state import State

_HEAD: Final = b'{"error":"","messages":['
_NOTHING: Final = _HEAD + b"]}"
# What follows the payload of a message of a run, first without a lease and then with one; by lane.
_END_OF_RUN: Final = tuple(
    tuple(middle[1:] + end for middle in MIDDLES) for end in (b"}", b',"delivery_count":1}')
)
# Room for what stands around the messages of a reply: the lease's name has at most 33 characters.
_FRAME: Final = len(_HEAD) + len(b'],"lease_id":""}') + 33


class FetchRead(NamedTuple):
    """What a FETCH that changes nothing brought."""

    reply: bytes
    msg_ids: Sequence[int]
    """In the order of the batch; a range where they are consecutive."""
    incarnation: int
    """0 = the reply is an error: answer it at once."""
    next_msg_id: int
    """For `commands.repeat_of`."""


class _Batch:
    """The messages of one reply so far."""

    __slots__ = ("_parts", "ids", "leased", "room", "size")

    def __init__(self, count: int, limit: int, leased: bool) -> None:
        self._parts: list[bytes] = []
        """Each message, or several of them, behind a part that stands before it."""
        self.ids: list[int] | range = range(0)
        """A range as long as they are consecutive and come in runs."""
        self.room = count
        self.size = limit - _FRAME
        """Bytes left; below 0 only with a single message."""
        self.leased = leased

    def add(self, msg_id: int, part: bytes) -> bool:
        """Takes a message in; False = it does not fit, and the batch is complete."""
        if len(part) >= self.size and self.ids:
            self.room = 0
            return False
        self._add([msg_id], part)
        return True

    def _add(self, ids: list[int] | range, text: bytes) -> None:
        known = self.ids
        self.size -= len(text) + 1
        self.room -= len(ids)
        self._parts += (b"," if known else _HEAD, text)
        if not known:
            self.ids = ids
        elif isinstance(known, list):
            known += ids
        elif isinstance(ids, range) and known.stop == ids.start:
            self.ids = range(known.start, ids.stop)
        else:
            self.ids = [*known, *ids]

    def add_all(self, ids: list[int], parts: list[bytes]) -> bool:
        """Takes messages in, not more than there is room for; False = one did not fit, and none after it."""
        text = b",".join(parts)
        if len(text) >= self.size:
            return all(map(self.add, ids, parts))
        self._add(ids, text)
        return True

    def add_run(self, lane: int, segment: Segment, msg_id: int) -> int:
        """Takes in messages of a run from an id on, or from its first, not more than there is room for.

        Returns:
            The id to go on with; -1 = what there is room for would be too long, and nothing was taken.
        """
        start = max(msg_id - segment.first_id, 0)
        first_id = segment.first_id + start
        count = min(self.room, len(segment.ids) - start)
        rest = _END_OF_RUN[self.leased][lane] % (segment.create_ms // 1000, segment.create_ms)
        if native.render_run is not None and segment.run_json is not None:
            text = native.render_run(segment.run_json, start, count, first_id, rest, self.size)
            if text is None:
                return -1
        else:
            count = min(count, MOST_OF_RUN)
            text = run_json(first_id, segment.texts()[start : start + count], rest)
            if len(text) >= self.size:
                return -1
        next_id = first_id + count
        known = self.ids
        if isinstance(known, range) and known.stop == first_id and known:
            self.ids = range(known.start, next_id)
            self.size -= len(text) + 1
            self.room -= count
            self._parts += (b",", text)
        else:
            self._add(range(first_id, next_id), text)
        return next_id

    def msg_ids(self) -> Sequence[int]:
        """The ids, never changed any more."""
        return self.ids if self.ids and isinstance(self.ids, range) else tuple(self.ids)

    def reply(self, lease_id: str) -> bytes:
        """The reply's JSON."""
        parts = self._parts
        if not parts:
            return _NOTHING
        parts.append(b'],"lease_id":"%b"}' % lease_id.encode() if lease_id else b"]}")
        return b"".join(parts)


def is_write(state: "State", command: MsgFetch) -> bool:
    """Tells whether the FETCH changes anything."""
    if not command.group_name:
        return False
    mailbox = state.mailbox(command.address)
    if mailbox is None:
        return False
    if command.lease_ms or command.force_deliver:
        return True
    return find_group(state, mailbox, command.group_name) is None


def fetch(state: "State", command: MsgFetch) -> bytes:
    """Carries out MSG.FETCH as a write."""
    if not (command.lease_ms and command.group_name) and not is_write(state, command):
        return _report_read(state, command, fetch_read(state, command))
    mailbox = state.mailbox(command.address)
    if mailbox is None:
        return errors.mailbox_not_found(command.address.decode())
    group = find_group(state, mailbox, command.group_name)
    if group is None:
        most = state.limits.max_groups
        if most and mailbox.group_count >= most:
            return errors.mailbox_full(command.address.decode(), f"it has {most} consumer groups")
        group = _start(state, mailbox, command)
    elif command.force_deliver:
        end_group(state, mailbox, group)
        group = _start(state, mailbox, command)
        state.effects.append(GroupReset(mailbox.address, mailbox.incarnation, group.name))
    if group.from_time:
        resolve_start(state, mailbox, group)
    batch = _Batch(command.num_msgs, state.limits.max_reply, bool(command.lease_ms))
    lease_id = ""
    if command.lease_ms:
        lease_id = _lease(state, mailbox, group, command.lease_ms, batch)
    else:
        _look(state, mailbox, group, batch)
    state.effects.append(
        Fetched(
            mailbox.address,
            mailbox.incarnation,
            group.name,
            batch.msg_ids(),
            bool(command.lease_ms),
            mailbox.next_id,
        )
    )
    if command.force_deliver:
        state.effects.append(Deliverable(mailbox.address, mailbox.incarnation, group.name))
    return batch.reply(lease_id)


def _report_read(state: "State", command: MsgFetch, done: FetchRead) -> bytes:
    if done.incarnation:
        state.effects.append(
            Fetched(
                command.address, done.incarnation, command.group_name, done.msg_ids, False, done.next_msg_id
            )
        )
    return done.reply


def fetch_read(state: "State", command: MsgFetch) -> FetchRead:
    """Carries out a FETCH that is none of `is_write`."""
    found = look(state, command)
    if found is None:
        raise LookupError("a FETCH that leases, resets or creates its group is a write")
    return found


def look(state: "State", command: MsgFetch) -> FetchRead | None:
    """Carries out a FETCH unless it is a write, None = it is."""
    mailbox = state.mailbox(command.address)
    if mailbox is None:
        return FetchRead(errors.mailbox_not_found(command.address.decode()), (), 0, 0)
    if command.group_name:
        group = find_group(state, mailbox, command.group_name)
        if group is None or command.lease_ms or command.force_deliver:
            return None
        batch = _Batch(command.num_msgs, state.limits.max_reply, False)
        _look(state, mailbox, group, batch)
    else:
        batch = _Batch(command.num_msgs, state.limits.max_reply, False)
        start, from_time = _start_of(state, mailbox, command)
        if not from_time:
            for lane in (0, 1, 2):
                if batch.room:
                    _take_fresh(state, mailbox, None, lane, start, batch)
    return FetchRead(batch.reply(""), batch.msg_ids(), mailbox.incarnation, mailbox.next_id)


def _start_of(state: "State", mailbox: "Mailbox", command: MsgFetch) -> tuple[int, int]:
    """Where ``deliver`` begins: the first id, and the time (s) that has to come first (0 = it is there)."""
    if command.deliver == "earliest":
        return 0, 0
    if command.deliver == "from_id":
        return command.from_id or 0, 0
    if command.deliver == "from_time":
        from_time = command.from_time or 0
        if from_time > state.now // 1000:
            return mailbox.next_id, from_time
        return state.segments.first_id_since(mailbox, 1000 * from_time), 0
    return mailbox.next_id, 0


def _start(state: "State", mailbox: "Mailbox", command: MsgFetch) -> Group:
    start, from_time = _start_of(state, mailbox, command)
    return start_group(state, mailbox, command.group_name, start, from_time)


def _lease(state: "State", mailbox: "Mailbox", group: Group, lease_ms: int, batch: _Batch) -> str:
    """Fills the batch and hides what is in it; returns the lease's name."""
    entries: dict[int, int] = {}
    fresh: list[tuple[int, int, int]] = []  # (lane, where its new messages begin and end in the batch)
    for lane in (0, 1, 2):
        if not batch.room:
            break
        if group.redeliveries[lane]:
            _take_redeliveries(state, mailbox, group, lane, batch, entries)
        if batch.room and not group.from_time and group.cursors[lane] <= mailbox.last_ids[lane]:
            taken = len(batch.ids)
            cursor = _take_fresh(state, mailbox, group, lane, group.cursors[lane], batch)
            if len(batch.ids) > taken:
                fresh.append((lane, taken, len(batch.ids)))
            if cursor != group.cursors[lane]:
                group.move_cursor(state, mailbox, lane, cursor)
    if not batch.ids:
        return ""
    # The usual batch comes from one lane and has nothing redelivered in it.
    run = run_of(batch.ids, 4 + fresh[0][0]) if len(fresh) == 1 and not entries else None
    if run is None:
        for lane, start, end in fresh:
            entries.update(dict.fromkeys(batch.ids[start:end], 4 + lane))
    number = mailbox.number(state)
    group.add_record(state, mailbox, LeaseRecord(number, number, state.now + lease_ms, True, run or entries))
    return lease_name(mailbox, number)


def _take_redeliveries(
    state: "State", mailbox: "Mailbox", group: Group, lane: int, batch: _Batch, entries: dict[int, int]
) -> None:
    """Takes what comes again into a leased batch, and drops what is gone."""
    position = 0
    while batch.room:
        entry = group.next_redelivery(state, lane, position)
        if entry is None:
            group.redeliveries[lane] = False
            break
        msg_id, count = entry
        there = state.segments.next_id(mailbox, lane, msg_id)
        if there != msg_id:
            # It is gone, and so is whatever stands before the next message that is not.
            position = mailbox.next_id if there is None else there
            group.remove_redeliveries(state, lane, msg_id, position)
            continue
        found = state.segments.find(mailbox, lane, msg_id, state.now)
        if found is not None:
            segment, message = found
            if not batch.add(msg_id, message_json(message, middle(lane, segment.create_ms), count + 1)):
                break
            entries[msg_id] = 4 * (count + 1) + lane
        group.remove_redelivery(state, lane, msg_id)
        position = msg_id + 1
    group.touch(state, mailbox)


def _look(state: "State", mailbox: "Mailbox", group: Group, batch: _Batch) -> None:
    """Fills the batch without a lease: nothing changes."""
    start, started = 0, not group.from_time
    if group.from_time and state.now // 1000 >= group.from_time:
        start, started = state.segments.first_id_since(mailbox, 1000 * group.from_time), True
    for lane in (0, 1, 2):
        if batch.room and group.redeliveries[lane]:
            _look_at_redeliveries(state, mailbox, group, lane, batch)
        cursor = group.cursors[lane]
        if batch.room and started and cursor <= mailbox.last_ids[lane]:
            _take_fresh(state, mailbox, group, lane, max(start, cursor), batch)


def _look_at_redeliveries(state: "State", mailbox: "Mailbox", group: Group, lane: int, batch: _Batch) -> None:
    """Shows what comes again."""
    position: int | None = 0
    while position is not None:
        begin, position = position, None
        for msg_id, count in group.scan_redeliveries(state, lane, begin):
            there = state.segments.next_id(mailbox, lane, msg_id)
            if there != msg_id:
                # It is gone, and so is whatever stands before the next message that is not.
                position = there
                break
            found = state.segments.find(mailbox, lane, msg_id, state.now)
            if found is None:
                continue
            segment, message = found
            if not batch.add(msg_id, message_json(message, middle(lane, segment.create_ms), count)):
                return
            if not batch.room:
                return


def _take_fresh(
    state: "State", mailbox: "Mailbox", group: Group | None, lane: int, cursor: int, batch: _Batch
) -> int:
    """Takes messages from ``cursor`` on that are not confirmed; returns where to go on."""
    last_id = mailbox.last_ids[lane]
    segments = state.segments
    while cursor <= last_id:
        segment = segments.at_or_after(mailbox, lane, cursor)
        if segment is None:
            return last_id + 1
        careful = segment.earliest_expiry and segment.earliest_expiry <= state.now
        if careful or (group is not None and group.intervals[lane]):
            return _take_carefully(state, mailbox, group, lane, cursor, batch)
        next_id = batch.add_run(lane, segment, cursor) if segment.run_json is not None else -1
        cursor = next_id if next_id >= 0 else _take_all(lane, segment, cursor, batch)
        if not batch.room:
            return cursor
    return cursor


def _take_all(lane: int, segment: Segment, cursor: int, batch: _Batch) -> int:
    """Takes a segment's messages from ``cursor`` on; none of them is confirmed or expired."""
    before = len(batch.ids)
    same = middle(lane, segment.create_ms)
    start = segment.index_at_or_after(cursor)
    messages: list[Any] = segment.messages[start : start + batch.room]
    if segment.live != len(segment.messages):
        messages = [message for message in segment.messages[start:] if message is not None][: batch.room]
    parts = [message_json(message, same, int(batch.leased)) for message in messages]
    if not batch.add_all([message[0] for message in messages], parts):
        return int(messages[len(batch.ids) - before][0])
    return batch.ids[-1] + 1 if not batch.room else segment.ids[-1] + 1


def _take_carefully(
    state: "State", mailbox: "Mailbox", group: Group | None, lane: int, cursor: int, batch: _Batch
) -> int:
    """Like `_take_fresh`, but leaves out what is expired or confirmed."""
    for segment, message in open_messages(state, mailbox, group, lane, cursor):
        part = message_json(message, middle(lane, segment.create_ms), int(batch.leased))
        if not batch.add(message[0], part):
            return int(message[0])
        if not batch.room:
            return int(message[0]) + 1
    return max(cursor, mailbox.last_ids[lane] + 1)
