"""Group commit: replies held back until what they tell of has reached the disk.

All replies that are held when a sync begins leave together when it has ended; what comes in meanwhile forms
the next group. A reply that tells of something not yet on disk is held, be it a write's or a read's: nobody
ever sees what a loss of power could take back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from mq9_broker._generated import errors
from mq9_broker.shell.refusal import SUCCESS
from mq9_broker.shell.waiting import Connection
from mq9_broker.store import StoreUnavailableError

_log = logging.getLogger(__name__)

Replies = list[tuple[bytes, bytes]]

# Answers after a failed sync: to what must not pass for "nothing was done", and to what was refused anyway.
_NOT_KNOWN: Final = errors.internal(
    "the disk did not take what was written; whether this was carried out is not known"
)
_NOTHING_DONE: Final = errors.unavailable("the disk did not take what was written")

#: Bytes of replies held; beyond them nothing else is done until the disk has caught up.
MOST_HELD: Final = 32 * 2**20


class SyncedStore(Protocol):
    """What group commit needs of a store."""

    @property
    def is_synced(self) -> bool:
        """Whether all that was written has reached the disk itself."""

    def sync(self) -> None:
        """Bring all that was written before this call to the disk itself; in another thread too."""


class GroupCommit:
    """Sends replies once the store is synced.

    Args:
        store: What the replies tell of.
        loop: Where everything but the sync itself runs.
        observe_sync: Gets the seconds that each sync took.
    """

    def __init__(
        self,
        store: SyncedStore,
        loop: asyncio.AbstractEventLoop,
        observe_sync: Callable[[float], None] | None = None,
    ) -> None:
        self._store = store
        self._loop = loop
        self._observe_sync = observe_sync
        self._thread = ThreadPoolExecutor(1, "group-commit")
        self._group: dict[Connection, Replies] = {}
        """Held by the sync that runs."""
        self._next: dict[Connection, Replies] = {}
        self._held = 0
        self._is_running = False

    def send(self, connection: Connection, replies: Replies) -> None:
        """Send replies of a connection as soon as all that was written until now is on disk, and in order."""
        if self._store.is_synced and not self._group and not self._next:
            connection.send_replies(replies)
            return
        held = self._next.get(connection)
        if held is None:
            self._next[connection] = list(replies)
        else:
            held += replies
        self._held += sum(len(reply) for _, reply in replies)
        if self._held > MOST_HELD:
            self.flush()
        elif not self._is_running:
            self._is_running = True
            # Whatever else is at hand in this turn of the loop joins the group.
            self._loop.call_soon(self._begin)

    def flush(self) -> None:
        """Sync here and now, and send everything that is held."""
        failure = self._sync()
        groups = (self._group, self._next)
        self._group, self._next, self._held = {}, {}, 0
        for group in groups:
            _release(group, failure)

    def close(self) -> None:
        """Send everything that is held, and end; no other method may be called afterwards."""
        self.flush()
        self._thread.shutdown()

    def _begin(self) -> None:
        self._group, self._next = self._next, {}
        if not self._group:  # flushed meanwhile
            self._is_running = False
            return
        future = self._loop.run_in_executor(self._thread, self._sync)
        future.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[str | None]) -> None:
        group, self._group = self._group, {}
        self._held = sum(len(reply) for replies in self._next.values() for _, reply in replies)
        if self._next:
            self._loop.call_soon(self._begin)
        else:
            self._is_running = False
        _release(group, future.result())

    def _sync(self) -> str | None:
        """Bring the store to disk; return why that was impossible."""
        began = self._loop.time()
        try:
            self._store.sync()
        except StoreUnavailableError as error:
            return str(error)
        if self._observe_sync is not None:
            self._observe_sync(self._loop.time() - began)
        return None


def _release(group: dict[Connection, Replies], failure: str | None) -> None:
    if failure is None:
        for connection, replies in group.items():
            connection.send_replies(replies)
        return
    if group:
        _log.error("the disk did not take what was written, so nobody is told that it was: %s", failure)
    for connection, replies in group.items():
        # What was refused has done nothing and may be tried again; the rest is perhaps in the log.
        connection.send_replies(
            [(to, _NOT_KNOWN if reply.startswith(SUCCESS) else _NOTHING_DONE) for to, reply in replies]
        )
