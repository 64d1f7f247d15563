"""Effects: what a change of state means to the shell. They carry no instructions, only facts, in order."""

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from mq9_broker.engine.commands import SendCommand


class Deliverable(msgspec.Struct, frozen=True, gc=False):
    """Something in the mailbox may now be delivered that could not before: wake waiting FETCHes.

    From SEND, a due delay, NACK, a lease or a NACK delay that ran out, and force_deliver.
    """

    address: bytes
    incarnation: int
    """Identifies the mailbox among all that ever had this address."""
    group: str = ""
    """The only group concerned, or "" for all waiters of the mailbox, stateless ones included."""


class MailboxGone(msgspec.Struct, frozen=True, gc=False):
    """Deleted, or its ttl is over: answer its waiters mailbox_not_found, forget its batches."""

    address: bytes
    incarnation: int


class Fetched(msgspec.Struct, frozen=True, gc=False):
    """First effect of every successful FETCH through `Engine.apply`; ``msg_ids`` empty = park it."""

    address: bytes
    incarnation: int
    group: str
    msg_ids: Sequence[int]
    """In the order of the batch; a range where they are consecutive."""
    leased: bool
    next_msg_id: int
    """For `repeat_of`."""


class GroupReset(msgspec.Struct, frozen=True, gc=False):
    """force_deliver made the group new: forget its un-leased batch."""

    address: bytes
    incarnation: int
    group: str


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """An outbox entry: apply ``send``, then ``OutboxRemove(source, incarnation, entry)`` in any case."""

    source: bytes
    incarnation: int
    entry: int
    send: SendCommand
    """The complete copy for the dead-letter mailbox, with its dedup-id."""


class DeadLetterDropped(msgspec.Struct, frozen=True, gc=False):
    """A message used up its deliveries and is dropped for the group, without a copy. For a metric."""

    address: bytes
    group: str
    msg_id: int
    reason: str
    """no_dead_letter (the mailbox has none) | already_dead_letter."""


class AgentChanged(msgspec.Struct, frozen=True, gc=False):
    """An agent was registered or replaced: index its body (see `Engine.agent`)."""

    name: str


class AgentRemoved(msgspec.Struct, frozen=True, gc=False):
    """An agent was unregistered or its ttl is over: drop it from the index."""

    name: str


Effect: TypeAlias = (
    Deliverable
    | MailboxGone
    | Fetched
    | GroupReset
    | DeadLetter
    | DeadLetterDropped
    | AgentChanged
    | AgentRemoved
)
