"""What the shell counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Numbers since the start of the process.

    Attributes:
        leased_messages: Messages handed out under a lease.
        returns: Times that something became deliverable again to a group: by NACK, or because a lease or the
            delay of a NACK ran out.
        dead_letters_delivered: Copies stored in a dead-letter mailbox.
        dead_letters_dropped: Messages that used up their deliveries and went nowhere, by reason (an error
            code, or what `DeadLetterDropped.reason` says).
        internal_errors: Requests answered `internal`.
        fetches_answered: FETCHes that waited, by how they ended: messages, timeout, gone, shutdown,
            disconnected.
    """

    leased_messages: int = 0
    returns: int = 0
    dead_letters_delivered: int = 0
    dead_letters_dropped: Counter[str] = field(default_factory=Counter)
    internal_errors: int = 0
    fetches_answered: Counter[str] = field(default_factory=Counter)
