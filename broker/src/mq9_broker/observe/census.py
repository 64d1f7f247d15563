"""A census of the mailboxes, taken in small steps in the background, so that nobody waits for it."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import logging
from dataclasses import dataclass, field
from typing import Final

from mq9_broker.engine import Engine
from mq9_broker.engine.commands import PRIORITIES
from mq9_broker.engine.engine import MailboxFacts
from mq9_broker.store import StoreUnavailableError

_log = logging.getLogger(__name__)

# Mailboxes looked at in one step, seconds between two steps of a census, and between two of them.
_STEP: Final = 100
_STEP_PAUSE_S: Final = 0.02
_PAUSE_S: Final = 10.0
_TOP: Final = 20


def hash_of(address: bytes) -> str:
    """How a mailbox is called where its address may not be shown: 12 hex digits of SHA-256."""
    return hashlib.sha256(address).hexdigest()[:12]


@dataclass(slots=True)
class Census:
    """What was found.

    Attributes:
        mailboxes: How many there are.
        messages: Messages by priority, acknowledged ones included.
        delayed: Messages that are not yet due.
        bytes_stored: Bytes of messages.
        groups: Consumer groups.
        top: The largest mailboxes by messages, the largest first.
    """

    mailboxes: int = 0
    messages: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PRIORITIES, 0))
    delayed: int = 0
    bytes_stored: int = 0
    groups: int = 0
    top: list[MailboxFacts] = field(default_factory=list)

    def add(self, facts: MailboxFacts) -> None:
        """Count a mailbox in."""
        self.mailboxes += 1
        for priority, count in zip(PRIORITIES, facts.live, strict=True):
            self.messages[priority] += count
        self.delayed += facts.delayed
        self.bytes_stored += facts.bytes_stored
        self.groups += facts.groups


class CensusTaker:
    """Takes a census again and again.

    Args:
        engine: Where the mailboxes are; only read, and only between other calls.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.latest = Census()

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            try:
                self.latest = await self._take()
            except StoreUnavailableError:  # whoever keeps the store says so
                _log.debug("no census: the store is not available")
            await asyncio.sleep(_PAUSE_S)

    async def _take(self) -> Census:
        census = Census()
        largest: list[tuple[int, bytes, MailboxFacts]] = []
        after = b""
        while facts := self._engine.mailbox_facts(after, _STEP):
            for each in facts:
                census.add(each)
                entry = (sum(each.live), each.address, each)
                if len(largest) < _TOP:
                    heapq.heappush(largest, entry)
                else:
                    heapq.heappushpop(largest, entry)
            after = facts[-1].address
            await asyncio.sleep(_STEP_PAUSE_S)
        census.top = [each for _, _, each in sorted(largest, reverse=True)]
        return census
