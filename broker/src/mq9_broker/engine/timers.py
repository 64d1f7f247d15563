"""Timers: leases and delays that run out, mailboxes and agents whose ttl is over.

They run before any command of their time or a later one, ordered by time; within a mailbox by creation.
"""

from typing import TYPE_CHECKING

from mq9_broker.engine.cleaning import clean, first_cleaning, first_due, next_in_mailbox
from mq9_broker.engine.keys import MAILBOX_TIMER, TIMER, pack_u64
from mq9_broker.engine.mailbox import (
    TIMER_DELAY_ENDS,
    TIMER_LEASE_ENDS,
    TIMER_MAILBOX_ENDS,
    Mailbox,
)
from mq9_broker.engine.registry import end_agent
from mq9_broker.engine.sending import end_delay
from mq9_broker.engine.settling import end_lease

if TYPE_CHECKING:
    from mq9_broker.engine.state import State


def run_due(state: "State", since: int, until: int) -> None:
    """Runs all timers up to ``until``, then cleans up; ``since`` = up to when they have run already."""
    start = TIMER + pack_u64(since)
    while (due := first_due(state, TIMER, start)) is not None and due.when <= until:
        state.now = due.when
        if due.incarnation == 0:
            end_agent(state, due.when, due.rest.decode())
        else:
            _run_mailbox(state, state.mailbox_of(due.incarnation), due.when)
        start = due.key + b"\x00"  # what a timer arms falls due later
    state.now = until
    clean(state)


def _run_mailbox(state: "State", mailbox: Mailbox, due: int) -> None:
    """Runs a mailbox's timers of this moment, and arms the next."""
    start = mailbox.prefix + MAILBOX_TIMER + pack_u64(mailbox.armed_timer or 0)
    while (found := next_in_mailbox(state, mailbox, MAILBOX_TIMER, start)) is not None and found[0] <= due:
        _, key, (kind, *values) = found
        state.store.delete(key)
        start = key + b"\x00"
        if kind == TIMER_MAILBOX_ENDS:
            state.remove_mailbox(mailbox)
            return
        if kind == TIMER_LEASE_ENDS:
            number = int.from_bytes(key[-8:], "big")
            end_lease(state, mailbox, values[0], values[1], number)
        elif kind == TIMER_DELAY_ENDS:
            end_delay(state, mailbox, values[0], tuple(values[1:]))
        else:
            raise LookupError(f"store has a timer of unknown kind {kind}")
    mailbox.write_messages(state)
    mailbox.arm_timer(state, None if found is None else found[0])


def next_due(state: "State") -> int | None:
    """When the first timer or cleaning falls due."""
    first = (first_due(state, TIMER, TIMER + pack_u64(state.time)), first_cleaning(state))
    return min((due.when for due in first if due is not None), default=None)
