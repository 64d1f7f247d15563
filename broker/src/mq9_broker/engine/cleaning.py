"""Cleaning up what has expired, in bounded steps.

Nothing that a client sees waits for cleaning: whoever reads a message looks at its expiry. Cleaning gives
back room, and keeps the counters.
"""

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from mq9_broker.engine.keys import (
    CLEANING,
    DEDUP,
    MAILBOX_CLEANING,
    MAX_U64,
    pack_u64,
    unpack_u64,
)
from mq9_broker.engine.mailbox import CLEAN_DEDUP, CLEAN_EXPIRED, CLEANING_GRAIN_MS

if TYPE_CHECKING:
    from mq9_broker.engine.mailbox import Mailbox
    from mq9_broker.engine.state import State

#: Messages and dedup-ids that one call of apply cleans up, and then stops at the next occasion.
CLEANING_STEPS: Final = 2_048
#: What it costs, in steps, to open segments, whether one of their messages goes or all of them.
_STEPS_TO_OPEN: Final = 16

_decode = msgspec.msgpack.Decoder().decode
_decode_dedup = msgspec.msgpack.Decoder(tuple[int, int]).decode


class Due(NamedTuple):
    """An entry of one of the engine's queues."""

    when: int
    incarnation: int
    """Of the mailbox; 0 = an agent's timer."""
    rest: bytes
    """What follows in the key."""
    key: bytes


def first_due(state: "State", queue: bytes, start: bytes) -> Due | None:
    """The first entry of an engine's queue, from a key on.

    Whoever goes through a queue and deletes goes on behind the last key: stepping over all that was deleted
    before, again and again, would cost the square of its number.
    """
    found = state.store.first(start, queue + MAX_U64 + MAX_U64)
    if found is None:
        return None
    key = found[0]
    return Due(unpack_u64(key[1:9])[0], unpack_u64(key[9:17])[0], key[17:], key)


def next_in_mailbox(
    state: "State", mailbox: "Mailbox", queue: bytes, start: bytes
) -> tuple[int, bytes, Any] | None:
    """(when, key, value) of the first in a mailbox's queue, from a key on."""
    found = state.store.first(start, mailbox.prefix + queue + MAX_U64 + MAX_U64 + b"\x00")
    if found is None:
        return None
    return unpack_u64(found[0][-16:-8])[0], found[0], _decode(found[1])


def clean(state: "State") -> None:
    """Cleans up what is due, in the order of time, until `CLEANING_STEPS` are done."""
    steps = 0
    while steps < CLEANING_STEPS:
        due = first_cleaning(state)
        if due is None or due.when > state.now:
            return
        mailbox = state.mailbox_of(due.incarnation)
        steps += 1 + _clean(state, mailbox, CLEANING_STEPS - steps)


def first_cleaning(state: "State") -> Due | None:
    """The first mailbox that has something to clean up."""
    due = first_due(state, CLEANING, state.first_cleaning)
    if due is not None:
        state.first_cleaning = due.key
    return due


def clean_mailbox(state: "State", mailbox: "Mailbox") -> bool:
    """Cleans up what is due in one mailbox, some of it at a time; returns whether there was anything."""
    return _clean(state, mailbox, CLEANING_STEPS) > 0


def _clean(state: "State", mailbox: "Mailbox", most: int) -> int:
    """Works off a mailbox's cleaning that is due, until ``most`` steps are done; returns how many were."""
    if mailbox.armed_cleaning is None:
        return 0
    # It is armed for the first of its entries, and less than a grain later.
    first = max(0, mailbox.armed_cleaning - CLEANING_GRAIN_MS)
    start = mailbox.prefix + MAILBOX_CLEANING + pack_u64(first)
    steps = 0
    while (found := next_in_mailbox(state, mailbox, MAILBOX_CLEANING, start)) is not None:
        due, key, (kind, *values) = found
        if due > state.now or steps >= most:
            break
        state.store.delete(key)
        start = key + b"\x00"
        if kind == CLEAN_EXPIRED:
            for lane, ids in enumerate(values):
                if ids:
                    steps += _STEPS_TO_OPEN + len(ids)
                    mailbox.remove(state, lane, ids)
        elif kind == CLEAN_DEDUP:
            steps += len(values[0])
            _forget_dedup_ids(state, mailbox, values[0])
        else:
            raise LookupError(f"store has cleaning of unknown kind {kind}")
    mailbox.arm_cleaning(state, None if found is None else found[0])
    return steps


def _forget_dedup_ids(state: "State", mailbox: "Mailbox", ids: list[str]) -> None:
    for dedup_id in ids:
        key = mailbox.prefix + DEDUP + dedup_id.encode()
        found = state.store.get(key)
        # A later SEND may have begun a new window under the same id.
        if found is not None and _decode_dedup(found)[0] <= state.now:
            state.store.delete(key)
            mailbox.dedup_ids -= 1
    mailbox.touch(state)
