"""Cleaning up what has expired, in bounded steps.

Nothing that a client sees waits for cleaning: whoever reads a message looks at its expiry. Cleaning gives
back room, and keeps the counters.
"""

from typing import TYPE_CHECKING, Any, Final

import msgspec

from mq9_broker.engine.keys import (
    CLEANING,
    DEDUP,
    MAILBOX_CLEANING,
    MAX_U64,
    pack_u64,
    unpack_u64,
)
from mq9_broker.engine.mailbox import CLEAN_DEDUP, CLEAN_EXPIRED

if TYPE_CHECKING:
    from mq9_broker.engine.mailbox import Mailbox
    from mq9_broker.engine.state import State

#: Messages and dedup-ids that one call of apply cleans up, and then stops at the next occasion.
CLEANING_STEPS: Final = 2_048

_decode = msgspec.msgpack.Decoder().decode
_decode_dedup = msgspec.msgpack.Decoder(tuple[int, int]).decode


def first_due(state: "State", queue: bytes, since: int = 0) -> tuple[int, int, bytes] | None:
    """(when, incarnation, rest of the key) of the first in an engine's queue, from ``since`` on."""
    found = state.store.first(queue + pack_u64(since), queue + MAX_U64 + MAX_U64)
    if found is None:
        return None
    key = found[0]
    return unpack_u64(key[1:9])[0], unpack_u64(key[9:17])[0], key[17:]


def next_in_mailbox(state: "State", mailbox: "Mailbox", queue: bytes) -> tuple[int, bytes, Any] | None:
    """(when, key, value) of the first in a mailbox's queue."""
    prefix = mailbox.prefix + queue
    found = state.store.first(prefix, prefix + MAX_U64 + MAX_U64 + b"\x00")
    if found is None:
        return None
    return unpack_u64(found[0][-16:-8])[0], found[0], _decode(found[1])


def clean(state: "State") -> None:
    """Cleans up what is due, in the order of time, until `CLEANING_STEPS` are done."""
    steps = 0
    while steps < CLEANING_STEPS:
        due = first_due(state, CLEANING)
        if due is None or due[0] > state.now:
            return
        mailbox = state.mailbox_of(due[1])
        steps += 1 + _clean_one(state, mailbox)


def clean_mailbox(state: "State", mailbox: "Mailbox") -> None:
    """Cleans up everything that is due in one mailbox."""
    while _clean_one(state, mailbox):
        pass


def _clean_one(state: "State", mailbox: "Mailbox") -> int:
    """Works off the first entry of a mailbox's cleaning if it is due; returns the steps that took."""
    if mailbox.armed_cleaning is None:
        return 0
    found = next_in_mailbox(state, mailbox, MAILBOX_CLEANING)
    steps = 0
    if found is not None and found[0] <= state.now:
        _, key, (kind, *values) = found
        state.store.delete(key)
        if kind == CLEAN_EXPIRED:
            for lane, ids in enumerate(values):
                if ids:
                    steps += len(ids)
                    mailbox.remove(state, lane, ids)
        elif kind == CLEAN_DEDUP:
            steps += len(values[0])
            _forget_dedup_ids(state, mailbox, values[0])
        else:
            raise LookupError(f"store has cleaning of unknown kind {kind}")
        found = next_in_mailbox(state, mailbox, MAILBOX_CLEANING)
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
