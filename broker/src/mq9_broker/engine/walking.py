"""Walking along a lane, past what a group has confirmed and what is gone."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mq9_broker.engine.groups import Group
from mq9_broker.engine.segments import Message, Segment, is_expired

if TYPE_CHECKING:
    from mq9_broker.engine.mailbox import Mailbox
    from mq9_broker.engine.state import State

# A stretch of more messages than this that nobody gets is noted, to be skipped the next time.
_LONG_SKIP: Final = 32
_MOST_JUMPS: Final = 1_024


def open_messages(
    state: "State", mailbox: "Mailbox", group: Group | None, lane: int, position: int
) -> Iterator[tuple[Segment, Message]]:
    """Messages from ``position`` on that are neither gone, expired nor confirmed.

    Where a long stretch begins that is none of it, it is noted where it ends: it stays so for this group.
    That only saves steps; what comes out is the same without.
    """
    jumps: dict[int, int] = {} if group is None else group.jumps[lane]
    last_id = mailbox.last_ids[lane]
    stretch, passed, lasting = position, 0, True
    position = jumps.get(position, position)
    while position <= last_id:
        segment = state.segments.at_or_after(mailbox, lane, position)
        if segment is None:
            break
        interval = None if group is None else group.next_interval(state, lane, position)
        begin, position = position, segment.ids[-1] + 1
        for index in range(segment.index_at_or_after(begin), len(segment.ids)):
            msg_id = segment.ids[index]
            while interval is not None and group is not None and interval[1] < msg_id:
                interval = group.interval_after(state, lane, interval[1])
            if interval is not None and interval[0] <= msg_id:
                passed += 1
                if interval[1] >= position:
                    position = interval[1] + 1
                    break
                continue
            message = segment.messages[index]
            if message is None or is_expired(message, state.now):
                passed += 1
                # A read may look ahead of the time that counts.
                lasting = lasting and (message is None or is_expired(message, state.time))
                continue
            if passed > _LONG_SKIP and lasting:
                _note_jump(jumps, stretch, msg_id)
            yield segment, message
            stretch, passed, lasting = msg_id + 1, 0, True
            if stretch in jumps:
                position = jumps[stretch]
                break
    if passed > _LONG_SKIP and lasting:
        _note_jump(jumps, stretch, last_id + 1)


def _note_jump(jumps: dict[int, int], begin: int, end: int) -> None:
    if len(jumps) >= _MOST_JUMPS:
        jumps.clear()
    jumps[begin] = end
